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

// How a matrix product takes its two sides: as float32, or rounded to bfloat16 (its sums are float32 either way).
struct Float {
  using Element = float;
  static constexpr int64_t GROUP = 1;  // inputs that lie together in a panel
  static inline void put(float* to, const lanes& v, int64_t n) {
    if (n == LANES) store_lanes(to, v);  // a memcpy of unknown length takes longer than all the rest of a transform
    else __builtin_memcpy(to, &v, uint64_t(n) * sizeof(float));
  }
  static inline void take_row(float* to, const float* from, int64_t n) {
    __builtin_memcpy(to, from, uint64_t(n) * sizeof(float));
  }
  template <int R>
  static inline void product(const float* a, int64_t stride, int64_t inputs, const float* panel, float* out,
                             int64_t out_stride) {
    multiply<R>(a, stride, inputs, panel, out, out_stride);
  }
};

#if FASTSNN_BF16
struct Bf16 {
  using Element = uint16_t;
  static constexpr int64_t GROUP = 2;
  static inline void put(uint16_t* to, const lanes& v, int64_t n) {
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
    if (n == LANES) __builtin_memcpy(to, &rounded, sizeof rounded);
    else __builtin_memcpy(to, &rounded, uint64_t(n) * sizeof(uint16_t));
  }
  static inline void take_row(uint16_t* to, const float* from, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
      lanes v;
      const int64_t count = n - i < LANES ? n - i : LANES;
      take(v, from + i, count);
      put(to + i, v, count);
    }
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
