// The matrix product inside other kernels, on a CPU: a few rows times one panel of weights, sums in registers.
//
// A panel holds PANEL output columns for all inputs, [inputs, PANEL] without gaps. Rows lie `stride` floats apart.
// Unlike the rest of the library this contracts to FMA.
// This file is compiled once per instruction set; the including file opens the namespace.

typedef float lanes __attribute__((vector_size(64)));
constexpr int64_t LANES = 16, PANEL = 2 * LANES;

inline void load_lanes(lanes& v, const float* p) { __builtin_memcpy(&v, p, sizeof v); }
inline void store_lanes(float* p, const lanes& v) { __builtin_memcpy(p, &v, sizeof v); }

template <int ROWS>
FASTSNN_CONTRACT void multiply(const float* a, int64_t stride, int64_t inputs, const float* panel, float* out,
                               int64_t out_stride) {
  FASTSNN_CONTRACT_INSIDE
  lanes sum[ROWS][2] = {};
  for (int64_t k = 0; k < inputs; ++k, panel += PANEL) {
    lanes left, right;
    load_lanes(left, panel);
    load_lanes(right, panel + LANES);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const float x = a[r * stride + k];
      sum[r][0] += x * left;
      sum[r][1] += x * right;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) {
    store_lanes(out + r * out_stride, sum[r][0]);
    store_lanes(out + r * out_stride + LANES, sum[r][1]);
  }
}

// One row times WIDE panels, of which only the inputs at `places` count; panels lie `inputs` * PANEL floats apart.
template <int PANELS>
FASTSNN_CONTRACT void add_up_spikes(const float* row, const int32_t* place, const int32_t* end, const float* panels,
                                    int64_t inputs, float* out) {
  FASTSNN_CONTRACT_INSIDE
  lanes sum[2 * PANELS] = {};
  for (; place < end; ++place) {
    const float x = row[*place];
    const float* weight = panels + *place * PANEL;
#pragma GCC unroll 16
    for (int64_t p = 0; p < PANELS; ++p) {
      lanes left, right;
      load_lanes(left, weight + p * inputs * PANEL);
      load_lanes(right, weight + p * inputs * PANEL + LANES);
      sum[2 * p] += x * left;
      sum[2 * p + 1] += x * right;
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < 2 * PANELS; ++p) store_lanes(out + p * LANES, sum[p]);
}

// Notes where a row is not 0, from places[n] on, up to LANES further than it says; returns the new n.
inline int64_t places_of_spikes(const float* row, int64_t inputs, int32_t* places, int64_t n) {
  int64_t k = 0;
#if FASTSNN_AVX512
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; k + LANES <= inputs; k += LANES) {
    const __mmask16 spikes = _mm512_cmp_ps_mask(_mm512_loadu_ps(row + k), _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512i at = _mm512_add_epi32(first, _mm512_set1_epi32(int32_t(k)));
    _mm512_storeu_si512(places + n, _mm512_maskz_compress_epi32(spikes, at));
    n += __builtin_popcount(spikes);
  }
#endif
  for (; k < inputs; ++k) {
    places[n] = int32_t(k);
    n += row[k] != 0.0f;  // also a NaN
  }
  return n;
}

// Whether one of n floats is not 0 (also a NaN); it looks no further than the lanes that hold the first one.
inline bool has_spike(const float* p, int64_t n) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
#if FASTSNN_AVX512
    if (_mm512_cmp_ps_mask(_mm512_loadu_ps(p + i), _mm512_setzero_ps(), _CMP_NEQ_UQ)) return true;
#else
    bool any = false;
    for (int64_t k = 0; k < LANES; ++k) any |= p[i + k] != 0.0f;
    if (any) return true;
#endif
  }
  for (; i < n; ++i)
    if (p[i] != 0.0f) return true;
  return false;
}

inline void take(lanes& v, const float* p, int64_t n) {
  if (n == LANES) return load_lanes(v, p);
  v = lanes{};
  __builtin_memcpy(&v, p, uint64_t(n) * sizeof(float));
}

// How a matrix product takes its two sides: as float32, or rounded to bfloat16 (its sums are float32 either way), or as
// integers. `put` and `take_row` tell whether they could.
struct Float {
  using Element = float;
  static constexpr int64_t GROUP = 1;    // inputs that lie together in a panel
  static constexpr bool SKIPS = true;    // whether sums may leave out zeros: `add_up` and `places`
  static int64_t panel(int64_t inputs) { return inputs * PANEL; }  // its elements
  static inline bool put(float* to, const lanes& v, int64_t n) {
    if (n == LANES) store_lanes(to, v);  // a memcpy of unknown length takes longer than all the rest of a transform
    else __builtin_memcpy(to, &v, uint64_t(n) * sizeof(float));
    return true;
  }
  static inline bool take_row(float* to, const float* from, int64_t n) {
    __builtin_memcpy(to, from, uint64_t(n) * sizeof(float));
    return true;
  }
  template <int R>
  static inline void product(const float* a, int64_t stride, int64_t inputs, const float* panel, float* out,
                             int64_t out_stride) {
    multiply<R>(a, stride, inputs, panel, out, out_stride);
  }
  template <int PANELS>
  static inline void add_up(const float* row, const int32_t* place, const int32_t* end, const float* panels,
                            int64_t inputs, float* out) {
    add_up_spikes<PANELS>(row, place, end, panels, inputs, out);
  }
  static inline int64_t places(const float* row, int64_t inputs, int32_t* places, int64_t n) {
    return places_of_spikes(row, inputs, places, n);
  }
};

#if FASTSNN_BF16
template <class Side>
inline bool take_rounded_row(typename Side::Element* to, const float* from, int64_t n) {
  bool exact = true;
  for (int64_t i = 0; i < n; i += LANES) {
    lanes v;
    const int64_t count = n - i < LANES ? n - i : LANES;
    take(v, from + i, count);
    exact &= Side::put(to + i, v, count);
  }
  return exact;
}

struct Bf16 {
  using Element = uint16_t;
  static constexpr int64_t GROUP = 2;
  static constexpr bool SKIPS = false;
  static int64_t panel(int64_t inputs) { return inputs * PANEL; }
  static inline bool put(uint16_t* to, const lanes& v, int64_t n) {
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
    if (n == LANES) __builtin_memcpy(to, &rounded, sizeof rounded);
    else __builtin_memcpy(to, &rounded, uint64_t(n) * sizeof(uint16_t));
    return true;
  }
  static inline bool take_row(uint16_t* to, const float* from, int64_t n) {
    return take_rounded_row<Bf16>(to, from, n);
  }
  template <int R>
  static void product(const uint16_t* a, int64_t stride, int64_t inputs, const uint16_t* panel, float* out,
                      int64_t out_stride) {
    __m512 sum[R][2] = {};
    for (int64_t k = 0; k < inputs; k += 2, panel += 2 * PANEL) {
      const __m512bh left = (__m512bh)_mm512_loadu_si512(panel);
      const __m512bh right = (__m512bh)_mm512_loadu_si512(panel + PANEL);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        int32_t pair;
        __builtin_memcpy(&pair, a + r * stride + k, sizeof pair);
        const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
        sum[r][0] = _mm512_dpbf16_ps(sum[r][0], x, left);
        sum[r][1] = _mm512_dpbf16_ps(sum[r][1], x, right);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      _mm512_storeu_ps(out + r * out_stride, sum[r][0]);
      _mm512_storeu_ps(out + r * out_stride + LANES, sum[r][1]);
    }
  }
};

// Spikes, which are small integers, times weights rounded to integers of 16 bits in a unit of each column's own. Sums are
// exact, in any order: the units are chosen so that inputs up to LIMIT never overflow 32 bits.
template <int LIMIT>
struct Integers {
  using Element = int16_t;
  static constexpr int64_t GROUP = 2;
  static constexpr bool SKIPS = true;
  static constexpr __mmask16 ALL = 0xFFFF;  // GCC 12 warns of its own header where there is no mask
  static int64_t panel(int64_t inputs) { return inputs * PANEL + 2 * PANEL; }  // the units are PANEL floats
  static inline bool put(int16_t* to, const lanes& v, int64_t n) {
    const __m512i whole = _mm512_maskz_cvtps_epi32(ALL, (__m512)v);
    const __mmask16 same = _mm512_cmp_ps_mask(_mm512_maskz_cvtepi32_ps(ALL, whole), (__m512)v, _CMP_EQ_OQ);
    const __mmask16 small = _mm512_cmple_epu32_mask(_mm512_maskz_abs_epi32(ALL, whole), _mm512_set1_epi32(LIMIT));
    const __m256i narrow = _mm512_maskz_cvtepi32_epi16(ALL, whole);
    if (n == LANES) __builtin_memcpy(to, &narrow, sizeof narrow);
    else __builtin_memcpy(to, &narrow, uint64_t(n) * sizeof(int16_t));
    return (same & small) == ALL;
  }
  static inline bool take_row(int16_t* to, const float* from, int64_t n) {
    return take_rounded_row<Integers>(to, from, n);
  }
  static inline __m512i pair_at(const int16_t* a) {
    int32_t pair;
    __builtin_memcpy(&pair, a, sizeof pair);
    return _mm512_set1_epi32(pair);
  }
  // The intrinsic, of which GCC 12 makes a copy of every sum at every step.
  static inline void add_products(__m512i& sum, const __m512i& pair, const __m512i& weights) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(pair), "vm"(weights));
  }
  static inline void put_sum(float* out, __m512i sum, const int16_t* unit) {
    _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_maskz_cvtepi32_ps(ALL, sum), _mm512_loadu_ps(unit)));
  }
  template <int R>
  static void product(const int16_t* a, int64_t stride, int64_t inputs, const int16_t* panel, float* out,
                      int64_t out_stride) {
    __m512i sum[R][2] = {};
    for (int64_t k = 0; k < inputs; k += 2, panel += 2 * PANEL) {
      const __m512i left = _mm512_loadu_si512(panel), right = _mm512_loadu_si512(panel + PANEL);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m512i x = pair_at(a + r * stride + k);
        add_products(sum[r][0], x, left);
        add_products(sum[r][1], x, right);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      put_sum(out + r * out_stride, sum[r][0], panel);
      put_sum(out + r * out_stride + LANES, sum[r][1], panel + PANEL);
    }
  }
  // One row times PANELS panels, of which only the pairs of inputs at `places` count.
  template <int PANELS>
  static void add_up(const int16_t* row, const int32_t* place, const int32_t* end, const int16_t* panels, int64_t inputs,
                     float* out) {
    __m512i sum[2 * PANELS] = {};
    for (; place < end; ++place) {
      const __m512i x = pair_at(row + 2 * *place);
      const int16_t* weight = panels + *place * 2 * PANEL;
#pragma GCC unroll 16
      for (int64_t p = 0; p < PANELS; ++p, weight += panel(inputs)) {
        add_products(sum[2 * p], x, _mm512_loadu_si512(weight));
        add_products(sum[2 * p + 1], x, _mm512_loadu_si512(weight + PANEL));
      }
    }
#pragma GCC unroll 16
    for (int64_t p = 0; p < PANELS; ++p) {
      const int16_t* unit = panels + p * panel(inputs) + inputs * PANEL;
      put_sum(out + 2 * p * LANES, sum[2 * p], unit);
      put_sum(out + (2 * p + 1) * LANES, sum[2 * p + 1], unit + PANEL);
    }
  }
  static inline int64_t places(const int16_t* row, int64_t inputs, int32_t* places, int64_t n) {
    float pairs[LANES];
    int64_t k = 0;
    for (; k + 2 * LANES <= inputs; k += 2 * LANES) n = places_of_nonzero(_mm512_loadu_si512(row + k), k / 2, places, n);
    if (k == inputs) return n;
    __builtin_memset(pairs, 0, sizeof pairs);
    __builtin_memcpy(pairs, row + k, uint64_t(inputs - k) * sizeof(int16_t));
    return places_of_nonzero(_mm512_loadu_si512(pairs), k / 2, places, n);
  }
  static inline int64_t places_of_nonzero(__m512i pairs, int64_t first, int32_t* places, int64_t n) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 some = _mm512_test_epi32_mask(pairs, pairs);
    const __m512i at = _mm512_add_epi32(lane, _mm512_set1_epi32(int32_t(first)));
    _mm512_storeu_si512(places + n, _mm512_maskz_compress_epi32(some, at));
    return n + __builtin_popcount(some);
  }
};
using Int16 = Integers<127>;        // of rows: spikes, or sums of as many blocks as a network has
using Int16Tiles = Integers<1023>;  // of Winograd's tiles, which add up to 98 inputs
#endif

struct Buffer {  // scratch memory of one thread, kept: fresh memory costs more than what is done with it
  float* data = nullptr;
  int64_t size = 0;
  float* at_least(int64_t floats) {
    if (floats > size) {
      ::operator delete[](data, std::align_val_t(64));
      data = static_cast<float*>(::operator new[](uint64_t(floats) * sizeof(float), std::align_val_t(64)));
      size = floats;
    }
    return data;
  }
  ~Buffer() { ::operator delete[](data, std::align_val_t(64)); }
};
