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

// Sums of two rows are those of one: of both.
inline void join(double* sums, const double* others) {
  for (int i = 0; i < 3; ++i) sums[i] += others[i];
  sums[3] = others[3] > sums[3] || others[3] != others[3] ? others[3] : sums[3];  // once NaN, it stays so
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
