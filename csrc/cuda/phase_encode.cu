// phase_encode on a GPU, in CUDA C++. Specification: fastsnn/ops/phase_encode/reference.py.
//
//     level = binary expansion of the pixel, K bits      out[t] = bit K-1 - (t mod K) of level
//
// A thread reads four pixels once and writes their T planes, 16 bytes at a time.
#include "pack.cuh"

namespace fastsnn {

DEVICE uint32_t level(const PhaseEncode& a, int64_t pixel) {
  if (a.is_float) {
    const float top = float((1 << a.period) - 1);
    return uint32_t(rintf(static_cast<const float*>(a.images)[pixel] * top));  // half to even
  }
  const uint32_t byte = static_cast<const unsigned char*>(a.images)[pixel];
  return a.period < 8 ? byte >> (8 - a.period) : byte << (a.period - 8);
}

template <int WIDTH>
DEVICE void encode(const PhaseEncode& a) {
  const int64_t at = mine<WIDTH>();
  if (at >= a.pixels) return;
  uint32_t levels[WIDTH];
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) levels[i] = level(a, at + i);
  const float first = a.weighted ? 0.5f : 1.0f;
  float spike = first;
  int phase = 0;
  for (int64_t t = 0; t < a.steps; ++t) {
    Pack out = {};
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) put<float>(out, i, levels[i] >> (a.period - 1 - phase) & 1u ? spike : 0.0f);
    store<float, WIDTH>(a.out, t * a.pixels + at, out);
    if (a.weighted) spike *= 0.5f;
    if (++phase == a.period) phase = 0, spike = first;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) encode_wide(const PhaseEncode a) { encode<4>(a); }
extern "C" __global__ void __launch_bounds__(THREADS) encode_narrow(const PhaseEncode a) { encode<1>(a); }

}  // namespace fastsnn
