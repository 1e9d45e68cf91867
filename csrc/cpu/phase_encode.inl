// phase_encode on a CPU. Specification: fastsnn/ops/phase_encode/reference.py.
//
//     level = binary expansion of the pixel, K bits      out[t] = bit K-1 - (t mod K) of level
//
// A pixel is read once; its T output planes are written as T streams.

void phase_encode(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const PhaseEncode*>(arguments);
  const float top = float((1 << a.period) - 1);
  int32_t level[1024];
  for (int64_t first = begin; first < end; first += 1024) {
    const int64_t n = end - first < 1024 ? end - first : 1024;
    if (a.is_float) {
      const float* x = static_cast<const float*>(a.images) + first;
      for (int64_t i = 0; i < n; ++i) level[i] = int32_t((x[i] * top + 12582912.0f) - 12582912.0f);  // half to even
    } else {  // the expansion of pixel / 256, cut or extended to K bits
      const uint8_t* x = static_cast<const uint8_t*>(a.images) + first;
      const int32_t drop = a.period < 8 ? 8 - a.period : 0, extend = a.period > 8 ? a.period - 8 : 0;
      for (int64_t i = 0; i < n; ++i) level[i] = (int32_t(x[i]) >> drop) << extend;
    }
    for (int64_t t = 0; t < a.steps; ++t) {
      const int32_t phase = int32_t(t % a.period), bit = a.period - 1 - phase;
      const float spike = a.weighted ? 0.5f / float(1 << phase) : 1.0f;
      float* out = static_cast<float*>(a.out) + t * a.pixels + first;
      for (int64_t i = 0; i < n; ++i) out[i] = (level[i] >> bit) & 1 ? spike : 0.0f;
    }
  }
}
