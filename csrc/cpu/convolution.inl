// A square convolution as a matrix product with its windows, on a CPU, with any stride and padding.
//
//     forward    y[i, j] = W . x[window of i, j]     the windows of a chunk of pixels are gathered, then multiplied
//     backward   D[i, j] = g[i, j] . W               for all of the window at once, of some frames; then every pixel adds up
//                                                    what it has in the windows over it, in the order of the windows
//
// Channels are innermost, so a row of a window is one run of kernel * inputs floats, less what hangs over the border.
// Forward a task is a chunk of output pixels, backward a frame; the number of threads changes no bit.
// This file is compiled once per instruction set; the including file opens the namespace.

inline void copy_run(float* to, const float* from, int64_t n) {  // memcpy's call costs more than these few floats
  lanes v;
  int64_t k = 0;
  for (; k + LANES <= n; k += LANES) load_lanes(v, from + k), store_lanes(to + k, v);
  if (n < LANES) __builtin_memcpy(to, from, uint64_t(n) * sizeof(float));
  else load_lanes(v, from + n - LANES), store_lanes(to + n - LANES, v);
}

template <class Side>
void convolution_forward_of(int64_t begin, int64_t end, void* arguments) {
  using Element = typename Side::Element;
  const auto& a = *static_cast<const Convolution*>(arguments);
  const int64_t run = a.kernel * a.inputs, window = a.kernel * run, stride = row_stride<Side>(window);
  const int64_t across = a.out_width, pixels = a.out_height * across, all = a.frames * pixels;
  static thread_local Buffer buffer;
  static thread_local Aside aside;
  float* block = buffer.at_least(ROWS * PANEL + window + LANES + CHUNK * stride);
  float* gathered = block + ROWS * PANEL;  // a row, where its elements are not floats
  Element* in = reinterpret_cast<Element*>(gathered + (window + LANES - 1) / LANES * LANES);
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t first = chunk * CHUNK, rows = all - first < CHUNK ? all - first : CHUNK;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t frame = (first + r) / pixels, pixel = (first + r) % pixels;
      const int64_t top = pixel / across * a.stride - a.padding, left = pixel % across * a.stride - a.padding;
      const float* x = a.x + frame * a.height * a.width * a.inputs;
      float* to_row = gathered;
      if constexpr (Side::GROUP == 1) to_row = in + r * stride;
      for (int64_t ky = 0; ky < a.kernel; ++ky) {
        const int64_t y = top + ky;
        const int64_t from = left < 0 ? -left : 0, to = a.width - left < a.kernel ? a.width - left : a.kernel;
        float* row = to_row + ky * run;
        if (from > 0 || to < a.kernel || y < 0 || y >= a.height)
          for (int64_t k = 0; k < run; ++k) row[k] = 0.0f;
        if (from < to && y >= 0 && y < a.height)
          copy_run(row + from * a.inputs, x + (y * a.width + left + from) * a.inputs, (to - from) * a.inputs);
      }
      if constexpr (Side::GROUP != 1)
        if (!take_row<Side>(in + r * stride, gathered, window)) aside.keep(gathered, r, window);
    }
    float* out = a.out + first * a.outputs;
    if (aside.count < rows) multiply_rows<Side>(in, rows, window, a.weight, a.outputs, out, block, a.is_finite);
    aside.multiply(a.exact, window, a.outputs, out, block);
  }
}

void convolution_forward(int64_t begin, int64_t end, void* arguments) {
  convolution_forward_of<Float>(begin, end, arguments);
}

// The gradient of one line of a frame: all of its floats, LANES at a time. D lies before and behind other floats, and `mask`
// has a run of ones among LANES zeros on either side, so that loads may begin and end beyond a window's run.
inline void add_up_line(const Convolution& a, const float* D, const uint32_t* mask, int64_t y, float* out) {
  typedef uint32_t bits __attribute__((vector_size(64)));
  const int64_t run = a.kernel * a.inputs, window = a.kernel * run, step = a.stride * a.inputs, left = a.padding * a.inputs;
  const int64_t last_i = (y + a.padding) / a.stride < a.out_height - 1 ? (y + a.padding) / a.stride : a.out_height - 1;
  const int64_t over = y + a.padding - a.kernel + 1, first_i = over > 0 ? (over + a.stride - 1) / a.stride : 0;
  for (int64_t f = 0; f < a.width * a.inputs; f += LANES) {
    const int64_t n = a.width * a.inputs - f < LANES ? a.width * a.inputs - f : LANES;
    const int64_t end = (f + left + LANES - 1) / step, last_j = end < a.out_width - 1 ? end : a.out_width - 1;
    const int64_t begin = f + left - run + 1, first_j = begin > 0 ? (begin + step - 1) / step : 0;
    lanes sum = {};
    for (int64_t i = first_i; i <= last_i; ++i) {
      const float* d = D + i * a.out_width * window + (y + a.padding - i * a.stride) * run;
      for (int64_t j = first_j; j <= last_j; ++j) {
        const int64_t at = f + left - j * step;  // of the window's run: from -LANES + 1 to run - 1
        lanes v;
        bits inside;
        load_lanes(v, d + j * window + at);
        __builtin_memcpy(&inside, mask + LANES + at, sizeof inside);
        sum += (lanes)((bits)v & inside);
      }
    }
    Float::put(out + f, sum, n);
  }
}

template <class Side>
void convolution_backward_of(int64_t begin, int64_t end, void* arguments) {
  using Element = typename Side::Element;
  const auto& a = *static_cast<const Convolution*>(arguments);
  const int64_t run = a.kernel * a.inputs, window = a.kernel * run, stride = row_stride<Side>(a.outputs);
  const int64_t pixels = a.out_height * a.out_width, line = a.width * a.inputs;
  const int64_t together = pixels < CHUNK ? CHUNK / pixels : 1;  // frames
  static thread_local Buffer buffer;
  float* D = buffer.at_least(2 * LANES + together * pixels * window + 2 * LANES + run + ROWS * PANEL + CHUNK * stride);
  D += LANES;
  uint32_t* mask = reinterpret_cast<uint32_t*>(D + together * pixels * window + LANES);
  float* block = reinterpret_cast<float*>(mask + 2 * LANES + run);
  Element* in = reinterpret_cast<Element*>(block + ROWS * PANEL);
  for (int64_t k = 0; k < 2 * LANES + run; ++k) mask[k] = k >= LANES && k < LANES + run ? 0xFFFFFFFFu : 0u;
  for (int64_t n = begin; n < end; n += together) {
    const int64_t frames = end - n < together ? end - n : together;
    for (int64_t first = 0; first < frames * pixels; first += CHUNK) {
      const int64_t rest = frames * pixels - first, rows = rest < CHUNK ? rest : CHUNK;
      const float* g = a.x + (n * pixels + first) * a.outputs;
      for (int64_t r = 0; r < rows; ++r) take_row<Side>(in + r * stride, g + r * a.outputs, a.outputs);
      multiply_chunk<Side>(in, rows, a.outputs, static_cast<const Element*>(a.weight), window, D + first * window, block);
    }
    for (int64_t frame = 0; frame < frames; ++frame)
      for (int64_t y = 0; y < a.height; ++y)
        add_up_line(a, D + frame * pixels * window, mask, y, a.out + ((n + frame) * a.height + y) * line);
  }
}

void convolution_backward(int64_t begin, int64_t end, void* arguments) {
  convolution_backward_of<Float>(begin, end, arguments);
}
