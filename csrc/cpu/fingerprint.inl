// Hashes of memory, on a CPU: whether a tensor's bytes are still what they were. Specification: fastsnn/ops/fingerprint.py.
//
// A task is a chunk of a tensor's bytes, hashed into a number of its own, so threads change nothing. A lane takes every 32nd word, by
// an invertible step: one changed word always changes the hash, and several cancel with a probability of 2^-64. The
// rotation brings the highest bits (signs of floats) down to where the multiplication spreads them.
// This file is compiled once per instruction set; the including file opens the namespace.

typedef uint64_t words __attribute__((vector_size(64)));

inline void mix(words& hash, const char* word) {
  words bits;
  __builtin_memcpy(&bits, word, 64);
  bits ^= hash;
  hash = (bits << 31 | bits >> 33) * 0x9E3779B185EBCA87ull;
}

inline uint64_t fingerprint_chunk(const char* bytes, int64_t count) {
  words hash[4] = {};
  for (int i = 0; i < 4; ++i) hash[i] += uint64_t(i + 1);
  int64_t done = 0;
  for (; done + 256 <= count; done += 256)
    for (int i = 0; i < 4; ++i) mix(hash[i], bytes + done + 64 * i);
  char rest[256] = {};
  __builtin_memcpy(rest, bytes + done, size_t(count - done));
  for (int i = 0; i < 4; ++i) mix(hash[i], rest + 64 * i);
  uint64_t all = uint64_t(count);
  for (int i = 0; i < 4; ++i)
    for (int lane = 0; lane < 8; ++lane) {
      all ^= hash[i][lane];
      all = (all << 29 | all >> 35) * 0xC2B2AE3D27D4EB4Full;
    }
  return all ^ all >> 32;
}

void fingerprint(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Fingerprint*>(arguments);
  const int64_t* tensor = a.table;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    while (chunk >= tensor[3 + 2]) tensor += 3;  // the first chunk of the next
    const int64_t from = (chunk - tensor[2]) * a.chunk_bytes, left = tensor[1] - from;
    const char* bytes = reinterpret_cast<const char*>(tensor[0]);
    a.out[chunk] = fingerprint_chunk(bytes + from, left < a.chunk_bytes ? left : a.chunk_bytes);
  }
}
