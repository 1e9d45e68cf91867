// The matrix product inside other kernels, on a CPU: a few rows times one panel of weights, sums in registers.
//
// A panel holds PANEL output columns for all inputs, [inputs, PANEL] without gaps. Rows lie `stride` floats apart. An
// input may come in segments (the rows of a convolution's window). Unlike the rest of the library this contracts to FMA.
// This file is compiled once per instruction set; the including file opens the namespace.

typedef float lanes __attribute__((vector_size(64)));
constexpr int64_t LANES = 16, PANEL = 2 * LANES;

inline void load_lanes(lanes& v, const float* p) { __builtin_memcpy(&v, p, sizeof v); }
inline void store_lanes(float* p, const lanes& v) { __builtin_memcpy(p, &v, sizeof v); }

template <int ROWS>
FASTSNN_CONTRACT void multiply(const float* a, int64_t stride, int64_t segments, int64_t segment_stride, int64_t inputs,
                               const float* panel, float* out, int64_t out_stride) {
  FASTSNN_CONTRACT_INSIDE
  lanes sum[ROWS][2] = {};
  for (int64_t s = 0; s < segments; ++s, a += segment_stride) {
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
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) {
    store_lanes(out + r * out_stride, sum[r][0]);
    store_lanes(out + r * out_stride + LANES, sum[r][1]);
  }
}

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
