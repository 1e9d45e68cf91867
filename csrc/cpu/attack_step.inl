// The attack's step on a CPU. Specification: fastsnn/ops/attack_step/reference.py.
//
//     moved = x + alpha * sign(gradient)
//     out   = clip(origin + clip(moved - origin, -eps, eps), 0, 1)
//
// one pass instead of torch's seven; with `exact` the last rounding is turned towards the origin
// wherever it left the ball.

inline void attack_run(const float* __restrict x, const float* __restrict origin, const float* __restrict g,
                       float* __restrict out, int64_t n, float eps, float alpha, bool exact) {
  for (int64_t i = 0; i < n; ++i) {
    const float sign = float(g[i] > 0.0f) - float(g[i] < 0.0f);
    float d = (x[i] + alpha * sign) - origin[i];
    d = d < -eps ? -eps : d;
    d = d > eps ? eps : d;
    float y = origin[i] + d;
    y = y < 0.0f ? 0.0f : y;
    out[i] = y > 1.0f ? 1.0f : y;
  }
  if (!exact) return;
  for (int64_t i = 0; i < n; ++i) {
    union { float f; int32_t i; } inner;
    inner.f = out[i];
    inner.i += out[i] > origin[i] ? -1 : 1;  // values are in [0, 1], where neighbours are neighbouring integers
    const double distance = double(out[i]) - double(origin[i]);
    out[i] = (distance < 0 ? -distance : distance) > double(eps) ? inner.f : out[i];
  }
}

void attack_step(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const AttackStep*>(arguments);
  for (int64_t first = begin; first < end;) {
    const int64_t run = first / a.sample_inner, stop = (run + 1) * a.sample_inner;
    const int64_t n = (stop < end ? stop : end) - first, sample = run % a.samples;
    attack_run(a.x + first, a.origin + first, a.gradient + first, a.out + first, n, a.eps[sample], a.alpha[sample],
               a.exact);
    first += n;
  }
}
