// Auto-PGD's step in the ball of Linf. Specification: fastsnn/ops/momentum_step/reference.py.

inline float clipped(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

inline void momentum_run(const float* __restrict adv, const float* __restrict before, const float* __restrict g,
                         const float* __restrict origin, float* __restrict out, int64_t n, float eps, float size,
                         float weight) {
  for (int64_t i = 0; i < n; ++i) {
    const float below = origin[i] - eps, above = origin[i] + eps;
    const float low = below < 0.0f ? 0.0f : below, high = above > 1.0f ? 1.0f : above;
    const float sign = float(g[i] > 0.0f) - float(g[i] < 0.0f);  // 0 of NaN, as in torch
    const float z = clipped(sign * size + adv[i], low, high);
    const float moved = (z - adv[i]) * weight + adv[i];
    out[i] = clipped(moved + (adv[i] - before[i]) * (1.0f - weight), low, high);
  }
}

void momentum_step(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const MomentumStep*>(arguments);
  for (int64_t first = begin; first < end;) {
    const int64_t run = first / a.sample_inner, stop = (run + 1) * a.sample_inner;
    const int64_t n = (stop < end ? stop : end) - first, sample = run % a.samples;
    momentum_run(a.adv + first, a.before + first, a.gradient + first, a.origin + first, a.out + first, n, a.eps[sample],
                 a.size[sample], a.weight);
    first += n;
  }
}
