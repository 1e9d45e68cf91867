// What gradient sparsity counts of rows: zeros, L1, squared L2 and Linf. Specification: fastsnn/ops/tally.py.
//
// A row is one sum in an order that no number of threads changes: 16 sums side by side, in float32 over at most
// CHUNK_TALLIED numbers (an error of 1e-7), then in float64. Where a row's largest number says that float32 may not hold
// its squares, sums that are float64 all the way take their place: they are added up only where `exact` asks for them.

constexpr int64_t TALLIED = 4;  // sums of each row, in the order above
constexpr int64_t CHUNK_TALLIED = 512;
constexpr float LEAST = 1e-15f, MOST = 1e15f;
constexpr int SIDES = 16, HALF = SIDES / 2;

struct Sums {
  double l1, squares, exact_l1, exact_squares;
  int64_t others;  // what is not 0
  int32_t linf;    // bits of a float without a sign, which are ordered as it is
};

// What one register holds: the compiler lowers comparisons of wider vectors to scalars.
typedef float native __attribute__((vector_size(NATIVE)));
typedef int32_t native_bits __attribute__((vector_size(NATIVE)));
constexpr int WIDTH = NATIVE / int(sizeof(float)), NATIVES = SIDES / WIDTH;

inline void load_native(native& v, const float* p) { __builtin_memcpy(&v, p, sizeof v); }
inline void store_native(float* p, const native& v) { __builtin_memcpy(p, &v, sizeof v); }

typedef float half __attribute__((vector_size(HALF * sizeof(float))));
typedef double exact_half __attribute__((vector_size(HALF * sizeof(double))));
typedef int64_t exact_bits __attribute__((vector_size(HALF * sizeof(int64_t))));

// What SIDES numbers side by side come to, by quarters (loops over them were compiled to pairs).
typedef float quarter __attribute__((vector_size(SIDES / 4 * sizeof(float))));
typedef int32_t quarter_bits __attribute__((vector_size(SIDES / 4 * sizeof(int32_t))));

inline double total(const native* sides) {
  quarter all[4];
  __builtin_memcpy(all, sides, sizeof all);
  const quarter four = (all[0] + all[2]) + (all[1] + all[3]);
  return double(four[0] + four[2]) + double(four[1] + four[3]);
}

inline int32_t most_of(const native_bits* sides) {
  quarter_bits all[4];
  __builtin_memcpy(all, sides, sizeof all);
  const quarter_bits a = all[0] > all[1] ? all[0] : all[1], b = all[2] > all[3] ? all[2] : all[3], four = a > b ? a : b;
  int64_t pairs[2];
  __builtin_memcpy(pairs, &four, sizeof pairs);
  const int32_t c = int32_t(pairs[0]), d = int32_t(pairs[0] >> 32), e = int32_t(pairs[1]), f = int32_t(pairs[1] >> 32);
  const int32_t low = c > d ? c : d, high = e > f ? e : f;
  return low > high ? low : high;
}

inline int64_t total_of(const int64_t* number) { return *number; }

// Of numbers from 0 to 2^30 / SIDES.
inline int64_t total_of(const native_bits* sides) {
  quarter_bits all[4];
  __builtin_memcpy(all, sides, sizeof all);
  const quarter_bits four = (all[0] + all[1]) + (all[2] + all[3]);
  int64_t pairs[2];
  __builtin_memcpy(pairs, &four, sizeof pairs);
  const int64_t two = pairs[0] + pairs[1];
  return int32_t(two) + (two >> 32);
}

inline void add_exact(const float* x, int64_t n, Sums& __restrict sums) {
  exact_half sizes = {}, squares = {};
  int64_t i = 0;
  for (; i + HALF <= n; i += HALF) {
    half numbers;
    __builtin_memcpy(&numbers, x + i, sizeof numbers);
    const exact_half number = __builtin_convertvector(numbers, exact_half);
    sizes += (exact_half)((exact_bits)number & 0x7FFFFFFFFFFFFFFF);
    squares += number * number;
  }
  for (int k = 0; k < HALF; ++k) sums.exact_l1 += sizes[k], sums.exact_squares += squares[k];
  for (; i < n; ++i) sums.exact_l1 += __builtin_fabs(double(x[i])), sums.exact_squares += double(x[i]) * double(x[i]);
}

// Sums of every SIDES-th few numbers of a row: as many as a register holds. (Arrays of them were kept in memory.)
struct Lanes {
  native l1 = {}, squares = {};
  native_bits linf = {};
#if FASTSNN_AVX512
  int64_t others = 0;  // counted beside the vectors, which have enough to do
#else
  native_bits others = {};
#endif

  inline void add(const native& numbers) {
    const native_bits bits = (native_bits)numbers & 0x7FFFFFFF;
    const native size = (native)bits;
    l1 += size;
    linf = bits > linf ? bits : linf;
#if FASTSNN_AVX512
    squares = (native)_mm512_fmadd_ps((__m512)size, (__m512)size, (__m512)squares);
    others += __builtin_popcount(_mm512_test_epi32_mask((__m512i)bits, (__m512i)bits));
#else
    const native_bits one = native_bits{} + 1;
    squares += size * size;
    others += one < bits ? one : bits;
#endif
  }

  inline void join(const Lanes& more) {
    l1 += more.l1, squares += more.squares, others += more.others;
    linf = more.linf > linf ? more.linf : linf;
  }
};

// Sums of at most CHUNK_TALLIED numbers of a row.
struct Chunk {
  native l1[NATIVES], squares[NATIVES];
  native_bits linf[NATIVES];
  decltype(Lanes::others) others[NATIVES];

  // Takes the k-th lanes, after all of their numbers but the row's last n < SIDES at x.
  inline void take(int k, Lanes& lanes, const float* x, int64_t n) {
    if (n) {
      float last[SIDES] = {};
      for (int64_t i = 0; i < n; ++i) last[i] = x[i];
      native numbers;
      load_native(numbers, last + k * WIDTH);
      lanes.add(numbers);
    }
    l1[k] = lanes.l1, squares[k] = lanes.squares, linf[k] = lanes.linf, others[k] = lanes.others;
  }

  // Takes the n numbers of a row at x; for each SIDES of them it also does `also(i)`.
  template <class Also>
  inline void count(const float* x, int64_t n, Also also) {
    const int64_t whole = n / SIDES * SIDES;
    for (int k = 0; k < NATIVES; ++k) {
      Lanes lanes, more;  // in turn, as each waits for its last sum
      int64_t i = 0;
      for (; i + 2 * SIDES <= whole; i += 2 * SIDES) {
        if (k == 0) also(i), also(i + SIDES);
        native numbers, others;
        load_native(numbers, x + i + k * WIDTH);
        load_native(others, x + i + SIDES + k * WIDTH);
        lanes.add(numbers);
        more.add(others);
      }
      if (i < whole) {
        if (k == 0) also(i);
        native numbers;
        load_native(numbers, x + i + k * WIDTH);
        lanes.add(numbers);
      }
      lanes.join(more);
      take(k, lanes, x + whole, n - whole);
    }
  }

  // Adds all of it, the n numbers at x, to the row's.
  inline void close(const float* x, int64_t n, bool exact, Sums& __restrict sums) {
    asm("" : "+m"(*this));  // it is in memory only from here on: loops kept halves there that are asked for below
    const int32_t most = most_of(linf);
    sums.l1 += total(l1);
    sums.squares += total(squares);
    sums.linf = most > sums.linf ? most : sums.linf;
    sums.others += total_of(others);
    if (exact) add_exact(x, n, sums);
  }
};

// Writes a row's sums; returns whether they are right without exact sums.
inline bool finish(const Sums& sums, int64_t numbers, double* out) {
  float linf;  // NaN if there is one: no bits are larger
  __builtin_memcpy(&linf, &sums.linf, sizeof linf);
  const bool holds = linf < MOST && (linf > LEAST || linf == 0.0f);
  out[0] = double(numbers - sums.others), out[3] = linf;
  out[1] = holds ? sums.l1 : sums.exact_l1;
  out[2] = holds ? sums.squares : sums.exact_squares;
  return holds;
}

// A row's sums side by side.
typedef double row_sums __attribute__((vector_size(TALLIED * sizeof(double))));
typedef int64_t row_bits __attribute__((vector_size(TALLIED * sizeof(int64_t))));

inline void load_sums(row_sums& sums, const double* p) { __builtin_memcpy(&sums, p, sizeof sums); }

// Sums of two rows are those of one: of both.
inline void join(row_sums& sums, const row_sums& others) {
  const row_bits is_linf = {0, 0, 0, -1};
  const row_sums larger = (row_bits)(others > sums) | (row_bits)(others != others) ? others : sums;  // NaN stays
  sums = is_linf ? larger : sums + others;
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
        chunk.count(x, n, [](int64_t) {});
        chunk.close(x, n, exact, sums);
      }
      right = finish(sums, a.numbers, a.out + row * TALLIED) || exact;
    }
  }
}

void tally_added(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const TallyAdded*>(arguments);
  const int64_t steps = a.all_steps + 1, first = a.steps == a.all_steps ? 0 : a.all_steps;
  const int64_t* rows = a.table + 2 * (a.places + 1);
  double *here = new double[steps * (TALLIED + 2)], *squares = here + steps * TALLIED, *roots = squares + steps;
  for (int64_t place = begin; place < end; ++place) {
    const int64_t *own = a.table + 2 * place, *next = own + 2;
    for (int64_t i = 0; i < steps * (TALLIED + 2); ++i) here[i] = 0.0;
    const auto add = [&](int64_t step, const row_sums& sample) {
      row_sums sums;
      load_sums(sums, here + step * TALLIED);
      sums += sample;
      __builtin_memcpy(here + step * TALLIED, &sums, sizeof sums);
      squares[step] = sample[2];
    };
    for (int64_t b = 0; b < a.samples; ++b) {
      row_sums whole = {};
      for (int64_t t = 0; t < a.steps; ++t) {
        row_sums sample, other;
        load_sums(sample, a.sums[own[0]] + (t * a.samples + b) * TALLIED);
        for (int64_t part = own[0] + 1; part < next[0]; ++part) {
          load_sums(other, a.sums[part] + (t * a.samples + b) * TALLIED);
          join(sample, other);
        }
        if (first == 0) add(t, sample);
        join(whole, sample);
      }
      add(a.all_steps, whole);
      for (int64_t t = first; t < steps; ++t) roots[t] += __builtin_sqrt(squares[t]);  // side by side
    }
    for (int64_t row = own[1]; row < next[1]; ++row) {
      double* out = a.out + rows[row] * TALLIED * steps;
      for (int i = 0; i < TALLIED; ++i)
        for (int64_t t = first; t < steps; ++t) out[i * steps + t] += i == 2 ? roots[t] : here[t * TALLIED + i];
    }
  }
  delete[] here;
}
