// What gradient sparsity counts of rows: zeros, L1, squared L2 and Linf. Specification: fastsnn/ops/tally.py.
//
// A row is one sum in one order, whoever computes it: 16 sums side by side, in float32 over at most CHUNK_TALLIED numbers
// (an error of 1e-7), then in float64. Squares of a chunk whose largest number says that float32 may not hold them are
// float64 all the way.

constexpr int64_t TALLIED = 4;  // sums of each row, in the order above
constexpr int64_t CHUNK_TALLIED = 512;
constexpr float LEAST = 1e-15f, MOST = 1e15f;
constexpr int SIDES = 16;

struct Sums {
  double l1[SIDES], squares[SIDES];
  float linf[SIDES];
  int32_t zeros[SIDES];
};

inline void add_squares(const float* x, int64_t n, Sums& sums) {
  for (int64_t i = 0; i < n; ++i) sums.squares[i % SIDES] += double(x[i]) * double(x[i]);
}

// Adds n <= CHUNK_TALLIED numbers.
inline void add_chunk(const float* __restrict x, int64_t n, Sums& __restrict sums) {
  float l1[SIDES] = {}, squares[SIDES] = {}, linf[SIDES] = {};
  int32_t zeros[SIDES] = {};
  const auto add = [&](int k, float number) {
    const float size = __builtin_fabsf(number);
    zeros[k] += size == 0.0f;
    l1[k] += size;
    squares[k] += size * size;
    linf[k] = size > linf[k] ? size : linf[k];
  };
  int64_t i = 0;
  for (; i + SIDES <= n; i += SIDES)
    for (int k = 0; k < SIDES; ++k) add(k, x[i + k]);
  if (i < n) {
    float last[SIDES];
    for (int k = 0; k < SIDES; ++k) last[k] = i + k < n ? x[i + k] : 0.0f;
    for (int k = 0; k < SIDES; ++k) add(k, last[k]), zeros[k] -= i + k >= n;
  }
  float largest = 0.0f;
  for (int k = 0; k < SIDES; ++k) largest = linf[k] > largest ? linf[k] : largest;
  const bool holds = largest < MOST && (largest > LEAST || largest == 0.0f);
  for (int k = 0; k < SIDES; ++k) {
    sums.l1[k] += l1[k];
    sums.squares[k] += holds ? squares[k] : 0.0f;
    sums.linf[k] = linf[k] > sums.linf[k] ? linf[k] : sums.linf[k];
    sums.zeros[k] += zeros[k];
  }
  if (!holds) add_squares(x, n, sums);
}

inline void finish(const Sums& sums, double* out) {
  double zeros = 0.0, l1 = 0.0, squares = 0.0, linf = 0.0;
  for (int k = 0; k < SIDES; ++k) {
    zeros += sums.zeros[k];
    l1 += sums.l1[k];
    squares += sums.squares[k];
    linf = sums.linf[k] > linf ? sums.linf[k] : linf;
  }
  out[0] = zeros, out[1] = l1, out[2] = squares, out[3] = l1 == l1 ? linf : l1;  // NaN is in all sums
}

void tally(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Tally*>(arguments);
  for (int64_t row = begin; row < end; ++row) {
    Sums sums = {};
    const float* x = a.x + row * a.numbers;
    for (int64_t i = 0; i < a.numbers; i += CHUNK_TALLIED)
      add_chunk(x + i, a.numbers - i < CHUNK_TALLIED ? a.numbers - i : CHUNK_TALLIED, sums);
    finish(sums, a.out + row * TALLIED);
  }
}
