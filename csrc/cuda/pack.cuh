// Sixteen bytes of a tensor, the most that one access moves: 4 floats or 8 halves, computed on in float32.
// Kernels come in two widths: "wide" ones give each thread a pack, "narrow" ones one number, where tensors are not
// aligned or their rows no multiple of a pack.
#pragma once
#include "../arguments.h"

#ifdef __CUDACC__
#define DEVICE __device__ __forceinline__
DEVICE float from_float16(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
DEVICE unsigned short to_float16(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
// In PTX: where a pack was put together on several ways through the code, the compiler splits a plain store in four.
// It does not clobber "memory": no thread reads again what it stored.
DEVICE void store_16(void* p, const uint32_t (&w)[4]) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)), "r"(w[0]), "r"(w[1]),
               "r"(w[2]), "r"(w[3]));
}
#endif  // else a host that plays the device has defined them

namespace fastsnn {

constexpr int THREADS = 128;  // of a block: small, so that the small maps of a SEW-ResNet still spread over a GPU

struct float16 { uint16_t bits; };
struct bfloat16 { uint16_t bits; };
struct alignas(16) Pack { uint32_t words[4]; };
template <class S>
constexpr int WIDE = 16 / int(sizeof(S));  // numbers in a pack

DEVICE uint32_t get(const Pack& pack, int i, float) { return pack.words[i]; }
template <class S>
DEVICE uint32_t get(const Pack& pack, int i, S) { return pack.words[i / 2] >> (i % 2 * 16) & 0xFFFFu; }
DEVICE void set(Pack& pack, int i, uint32_t bits, float) { pack.words[i] = bits; }
template <class S>
DEVICE void set(Pack& pack, int i, uint32_t bits, S) {
  pack.words[i / 2] = i % 2 ? pack.words[i / 2] & 0xFFFFu | bits << 16 : pack.words[i / 2] & 0xFFFF0000u | bits;
}

DEVICE float widen(uint32_t bits, float) { return __uint_as_float(bits); }
DEVICE float widen(uint32_t bits, bfloat16) { return __uint_as_float(bits << 16); }
DEVICE float widen(uint32_t bits, float16) { return from_float16(uint16_t(bits)); }
DEVICE uint32_t narrow(float value, float) { return __float_as_uint(value); }
DEVICE uint32_t narrow(float value, bfloat16) {  // round to nearest even; NaN stays NaN
  const uint32_t bits = __float_as_uint(value);
  return value != value ? 0x7FC0u : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}
DEVICE uint32_t narrow(float value, float16) { return to_float16(value); }

template <class S>
DEVICE float number(const Pack& pack, int i) { return widen(get(pack, i, S()), S()); }
template <class S>
DEVICE void put(Pack& pack, int i, float value) { set(pack, i, narrow(value, S()), S()); }

template <class S, int WIDTH>
DEVICE Pack load(const void* tensor, int64_t at) {
  const S* p = static_cast<const S*>(tensor) + at;
  if constexpr (WIDTH > 1) return *reinterpret_cast<const Pack*>(p);
  Pack pack = {};
  if constexpr (sizeof(S) == 4) pack.words[0] = __float_as_uint(*p);
  else pack.words[0] = p->bits;
  return pack;
}

template <class S, int WIDTH>
DEVICE void store(void* tensor, int64_t at, const Pack& pack) {
  S* p = static_cast<S*>(tensor) + at;
  if constexpr (WIDTH > 1) store_16(p, pack.words);
  else if constexpr (sizeof(S) == 4) *p = __uint_as_float(pack.words[0]);
  else p->bits = uint16_t(pack.words[0]);
}

// The first number of this thread.
template <int WIDTH>
DEVICE int64_t mine() { return (int64_t(blockIdx.x) * THREADS + threadIdx.x) * WIDTH; }

}  // namespace fastsnn
