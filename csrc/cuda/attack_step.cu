// attack_step on a GPU, in CUDA C++. Specification: fastsnn/ops/attack_step/reference.py.
//
//     moved = x + alpha * sign(gradient)
//     out   = clip(origin + clip(moved - origin, -eps, eps), 0, 1)
//
// One pass, four elements per thread in wide kernels: 12 bytes read and 4 written per element. With `exact` the last rounding is turned
// towards the origin wherever it left the ball.
#include "pack.cuh"

namespace fastsnn {

// Comparisons keep NaN, where fminf and fmaxf drop it.
DEVICE float stepped(float x, float origin, float gradient, float eps, float alpha, bool exact) {
  const float sign = float(gradient > 0.0f) - float(gradient < 0.0f);
  float d = (x + alpha * sign) - origin;
  d = d < -eps ? -eps : d;
  d = d > eps ? eps : d;
  float out = origin + d;
  out = out < 0.0f ? 0.0f : out;
  out = out > 1.0f ? 1.0f : out;
  const double distance = double(out) - double(origin);
  if (exact && (distance > double(eps) || -distance > double(eps))) {
    // values are in [0, 1], where neighbouring numbers are neighbouring integers
    out = __uint_as_float(__float_as_uint(out) + (out > origin ? -1 : 1));
  }
  return out;
}

DEVICE int64_t sample(const AttackStep& a, int64_t element) {  // 32 bits where they do: dividing 64 is slow
  if (a.elements <= 0xFFFFFFFFll) return uint32_t(element) / uint32_t(a.sample_inner) % uint32_t(a.samples);
  return element / a.sample_inner % a.samples;
}

template <int WIDTH>
DEVICE void step(const AttackStep& a) {
  const int64_t at = mine<WIDTH>();
  if (at >= a.elements) return;
  const Pack x = load<float, WIDTH>(a.x, at), origin = load<float, WIDTH>(a.origin, at);
  const Pack gradient = load<float, WIDTH>(a.gradient, at);
  const bool shared = a.sample_inner % WIDTH == 0;  // then all belong to one sample
  int64_t s = sample(a, at);
  Pack out = {};
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) {
    if (i && !shared) s = sample(a, at + i);
    const float from = number<float>(origin, i);
    put<float>(out, i, stepped(number<float>(x, i), from, number<float>(gradient, i), a.eps[s], a.alpha[s], a.exact));
  }
  store<float, WIDTH>(a.out, at, out);
}

extern "C" __global__ void __launch_bounds__(THREADS) step_wide(const AttackStep a) { step<4>(a); }
extern "C" __global__ void __launch_bounds__(THREADS) step_narrow(const AttackStep a) { step<1>(a); }

}  // namespace fastsnn
