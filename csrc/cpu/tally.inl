// What gradient sparsity counts of rows: zeros, L1, squared L2 and Linf. Specification: fastsnn/ops/tally.py.
//
// A row is one sum in an order that no number of threads changes: 16 sums side by side, in float32 over at most
// CHUNK_TALLIED numbers (an error of 1e-7), then 8 in float64. Where a row's largest number says that float32 may not hold its squares,
// squares that are float64 all the way take their place: they are added up only where `exact` asks for them.

constexpr int64_t TALLIED = 4;  // sums of each row, in the order above
constexpr int64_t CHUNK_TALLIED = 512;
constexpr float LEAST = 1e-15f, MOST = 1e15f;
constexpr int SIDES = 16, HALF = SIDES / 2;

struct alignas(64) Sums {
  double l1[HALF], squares[HALF], exact_squares[HALF];
  int32_t linf[HALF], others[HALF];  // bits of floats without a sign, which are ordered as they are; what is not 0
};

// What one register holds: the compiler lowers comparisons of wider vectors to scalars.
typedef float native __attribute__((vector_size(NATIVE)));
typedef int32_t native_bits __attribute__((vector_size(NATIVE)));
constexpr int WIDTH = NATIVE / int(sizeof(float)), NATIVES = SIDES / WIDTH;

inline void load_native(native& v, const float* p) { __builtin_memcpy(&v, p, sizeof v); }
inline void store_native(float* p, const native& v) { __builtin_memcpy(p, &v, sizeof v); }

typedef float half __attribute__((vector_size(HALF * sizeof(float))));
typedef double exact_half __attribute__((vector_size(HALF * sizeof(double))));

inline void add_exact(const float* x, int64_t n, double* squares) {
  exact_half sum;
  __builtin_memcpy(&sum, squares, sizeof sum);
  int64_t i = 0;
  for (; i + HALF <= n; i += HALF) {
    half numbers;
    __builtin_memcpy(&numbers, x + i, sizeof numbers);
    const exact_half number = __builtin_convertvector(numbers, exact_half);
    sum += number * number;
  }
  __builtin_memcpy(squares, &sum, sizeof sum);
  for (int k = 0; i < n; ++i, ++k) squares[k] += double(x[i]) * double(x[i]);
}

// Sums of at most CHUNK_TALLIED numbers of a row, in registers.
struct Chunk {
  native l1[NATIVES] = {}, squares[NATIVES] = {};
  native_bits linf[NATIVES] = {}, others[NATIVES] = {};

  inline void add(int k, const native& numbers) {
    const native_bits bits = (native_bits)numbers & 0x7FFFFFFF, one = native_bits{} + 1;
    const native size = (native)bits;
    l1[k] += size;
    squares[k] += size * size;
    linf[k] = bits > linf[k] ? bits : linf[k];
    others[k] += one < bits ? one : bits;
  }

  // Adds n < SIDES numbers.
  inline void add_last(const float* x, int64_t n) {
    float last[SIDES] = {};
    for (int64_t k = 0; k < n; ++k) last[k] = x[k];
#pragma GCC unroll 4
    for (int k = 0; k < NATIVES; ++k) {
      native numbers;
      load_native(numbers, last + k * WIDTH);
      add(k, numbers);
    }
  }

  // Adds all that was added, the n numbers at x, to the row's.
  inline void close(const float* x, int64_t n, bool exact, Sums& __restrict sums) const {
    float size[SIDES], square[SIDES];
    int32_t bits[SIDES], ones[SIDES];
    __builtin_memcpy(size, l1, sizeof size);
    __builtin_memcpy(square, squares, sizeof square);
    __builtin_memcpy(bits, linf, sizeof bits);
    __builtin_memcpy(ones, others, sizeof ones);
    for (int k = 0; k < HALF; ++k) sums.l1[k] += double(size[k]) + double(size[k + HALF]);
    for (int k = 0; k < HALF; ++k) {
      const int32_t larger = bits[k] > bits[k + HALF] ? bits[k] : bits[k + HALF];
      sums.linf[k] = larger > sums.linf[k] ? larger : sums.linf[k];
    }
    for (int k = 0; k < HALF; ++k) sums.others[k] += ones[k] + ones[k + HALF];
    if (exact) add_exact(x, n, sums.exact_squares);
    for (int k = 0; k < HALF; ++k) sums.squares[k] += double(square[k]) + double(square[k + HALF]);
  }
};

inline double total(const double* sides) {
  double pairs[4];
  for (int k = 0; k < 4; ++k) pairs[k] = sides[k] + sides[k + 4];
  return (pairs[0] + pairs[2]) + (pairs[1] + pairs[3]);
}

// Writes a row's sums; returns whether they are right without exact squares.
inline bool finish(const Sums& sums, int64_t numbers, double* out) {
  int32_t bits = 0;
  int64_t others = 0;
  for (int k = 0; k < HALF; ++k) bits = sums.linf[k] > bits ? sums.linf[k] : bits;
  for (int k = 0; k < HALF; ++k) others += sums.others[k];
  float linf;  // NaN if there is one: no bits are larger
  __builtin_memcpy(&linf, &bits, sizeof linf);
  const bool holds = linf < MOST && (linf > LEAST || linf == 0.0f);
  out[0] = double(numbers - others), out[1] = total(sums.l1), out[3] = linf;
  out[2] = total(holds ? sums.squares : sums.exact_squares);
  return holds;
}

// Sums of two rows are those of one: of both.
inline void join(double* sums, const double* others) {
  for (int i = 0; i < 3; ++i) sums[i] += others[i];
  sums[3] = others[3] > sums[3] || others[3] != others[3] ? others[3] : sums[3];  // once NaN, it stays so
}

void tally(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Tally*>(arguments);
  for (int64_t row = begin; row < end; ++row) {
    bool right = false;
    for (bool exact = false; !right; exact = true) {
      Sums sums = {};
      for (int64_t first = 0; first < a.numbers; first += CHUNK_TALLIED) {
        const float* x = a.x + row * a.numbers + first;
        const int64_t rest = a.numbers - first, n = rest < CHUNK_TALLIED ? rest : CHUNK_TALLIED;
        Chunk chunk;
        int64_t i = 0;
        for (; i + SIDES <= n; i += SIDES)
#pragma GCC unroll 4
          for (int k = 0; k < NATIVES; ++k) {
            native numbers;
            load_native(numbers, x + i + k * WIDTH);
            chunk.add(k, numbers);
          }
        if (i < n) chunk.add_last(x + i, n - i);
        chunk.close(x, n, exact, sums);
      }
      right = finish(sums, a.numbers, a.out + row * TALLIED) || exact;
    }
  }
}

void tally_added(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const TallyAdded*>(arguments);
  for (int64_t place = begin; place < end; ++place) {
    double* out = a.out + place * TALLIED * (a.steps + 1);
    for (int64_t i = 0; i < TALLIED * (a.steps + 1); ++i) out[i] = 0.0;
    if (place == a.places) continue;
    const auto add = [&](int64_t step, const double* sample) {
      out[step] += sample[0];
      out[a.steps + 1 + step] += sample[1];
      out[2 * (a.steps + 1) + step] += __builtin_sqrt(sample[2]);
      out[3 * (a.steps + 1) + step] += sample[3];
    };
    for (int64_t b = 0; b < a.samples; ++b) {
      double whole[TALLIED] = {};
      for (int64_t t = 0; t < a.steps; ++t) {
        double sample[TALLIED] = {};
        for (int64_t part = 0; part < a.parts; ++part)
          join(sample, a.sums + (((part * a.places + place) * a.steps + t) * a.samples + b) * TALLIED);
        add(t, sample);
        join(whole, sample);
      }
      add(a.steps, whole);
    }
  }
}
