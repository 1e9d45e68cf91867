// A convolution whose window is a few long runs of floats, on a CPU: the 7x7 stem on 3 channels, with any stride.
//
//     forward    y[i, j] = sum over ky of W[ky] . x[i * stride + ky, j * stride ...]     a run of kernel * inputs floats
//     backward   D = g[i, j] . W   for all of the window at once, then added to its place in the frame
//
// Channels are innermost. A task is a frame; it is copied to a padded one first, so that no window meets a border.
// Frames do not depend on each other, so the number of threads changes no bit.
// This file is compiled once per instruction set; the including file opens the namespace.

constexpr int64_t PIXELS = 8;  // of an output row that go together

void convolution_forward(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Convolution*>(arguments);
  const int64_t run = a.kernel * a.inputs, padded = (a.outputs + PANEL - 1) / PANEL * PANEL;
  const int64_t across = (a.out_width + PIXELS - 1) / PIXELS * PIXELS;  // pixels of a row, the last group filled up
  const int64_t line = ((across - 1) * a.stride + a.kernel) * a.inputs, left = a.padding * a.inputs;
  const int64_t lines = (a.out_height - 1) * a.stride + a.kernel, width = a.width * a.inputs;
  static thread_local Buffer buffer;
  float* frame = buffer.at_least(lines * line + PIXELS * padded);
  float* out = frame + lines * line;
  for (int64_t i = 0; i < lines * line; ++i) frame[i] = 0.0f;
  const int64_t whole = line - left < width ? line - left : width;
  for (int64_t n = begin; n < end; ++n) {
    const float* x = a.x + n * a.height * width;
    for (int64_t i = 0; i < a.height && i + a.padding < lines; ++i)
      __builtin_memcpy(frame + (i + a.padding) * line + left, x + i * width, uint64_t(whole) * sizeof(float));
    float* y = a.out + n * a.out_height * a.out_width * a.outputs;
    for (int64_t i = 0; i < a.out_height; ++i)
      for (int64_t j = 0; j < a.out_width; j += PIXELS) {
        const float* window = frame + i * a.stride * line + j * a.stride * a.inputs;
        for (int64_t o = 0; o < padded; o += PANEL)
          multiply<PIXELS>(window, a.stride * a.inputs, a.kernel, line, run, a.weight + o * a.kernel * run, out + o,
                           padded);
        for (int64_t p = 0; p < PIXELS && j + p < a.out_width; ++p)
          __builtin_memcpy(y + (i * a.out_width + j + p) * a.outputs, out + p * padded,
                           uint64_t(a.outputs) * sizeof(float));
      }
  }
}

void convolution_backward(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Convolution*>(arguments);
  const int64_t run = a.kernel * a.inputs, padded = (a.kernel * run + PANEL - 1) / PANEL * PANEL;
  const int64_t line = ((a.out_width - 1) * a.stride + a.kernel) * a.inputs, left = a.padding * a.inputs;
  const int64_t lines = (a.out_height - 1) * a.stride + a.kernel, width = a.width * a.inputs;
  const int64_t pixels = a.out_height * a.out_width, whole = line - left < width ? line - left : width;
  static thread_local Buffer buffer;  // windows end at most LANES beyond what they add to
  float* frame = buffer.at_least(lines * line + LANES + ROWS * padded + LANES + ROWS * a.outputs);
  float* windows = frame + lines * line + LANES;
  float* last = windows + ROWS * padded + LANES;
  for (int64_t n = begin; n < end; ++n) {
    const float* g = a.x + n * pixels * a.outputs;
    for (int64_t i = 0; i < lines * line; ++i) frame[i] = 0.0f;
    for (int64_t first = 0; first < pixels; first += ROWS) {
      const int64_t rows = pixels - first < ROWS ? pixels - first : ROWS;
      const float* from = g + first * a.outputs;
      if (rows < ROWS) {  // the product reads ROWS of them
        for (int64_t i = 0; i < ROWS * a.outputs; ++i) last[i] = i < rows * a.outputs ? from[i] : 0.0f;
        from = last;
      }
      for (int64_t o = 0; o < padded; o += PANEL)
        multiply<ROWS>(from, a.outputs, 1, 0, a.outputs, a.weight + o * a.outputs, windows + o, padded);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t i = (first + r) / a.out_width, j = (first + r) % a.out_width;
        for (int64_t ky = 0; ky < a.kernel; ++ky) {
          float* __restrict to = frame + (i * a.stride + ky) * line + j * a.stride * a.inputs;
          const float* __restrict d = windows + r * padded + ky * run;
          int64_t k = 0;
          for (; k + LANES <= run; k += LANES) {
            lanes sum, more;
            load_lanes(sum, to + k), load_lanes(more, d + k);
            store_lanes(to + k, sum + more);
          }
          for (; k < run; ++k) to[k] += d[k];
        }
      }
    }
    float* x = a.out + n * a.height * width;
    for (int64_t i = 0; i < a.height; ++i) {
      const bool inside = i + a.padding < lines;
      for (int64_t k = 0; k < width; ++k)
        x[i * width + k] = inside && k < whole ? frame[(i + a.padding) * line + left + k] : 0.0f;
    }
  }
}
