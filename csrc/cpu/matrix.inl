// A matrix product with weights in panels, on a CPU: out [rows, outputs] = in [rows, inputs] . weight.
//
// A task is a chunk of rows that stays in the second-level cache while the panels stream past. Every element is one sum
// in one order, so neither the number of rows nor that of threads changes a bit of it.
// This file is compiled once per instruction set; the including file opens the namespace.

void matrix(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Matrix*>(arguments);
  const int64_t stride = a.inputs + LANES;  // rows 4096 bytes apart would share the same places of the first-level cache
  static thread_local Buffer buffer;
  float* in = buffer.at_least(CHUNK * stride + ROWS * PANEL);
  float* block = in + CHUNK * stride;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t first = chunk * CHUNK, rows = a.rows - first < CHUNK ? a.rows - first : CHUNK;
    for (int64_t r = 0; r < rows; ++r)
      __builtin_memcpy(in + r * stride, a.x + (first + r) * a.inputs, uint64_t(a.inputs) * sizeof(float));
    for (int64_t i = rows * stride; i < (rows + ROWS - 1) / ROWS * ROWS * stride; ++i) in[i] = 0.0f;
    for (int64_t o = 0; o < a.outputs; o += PANEL) {
      const float* panel = a.weight + o * a.inputs;
      const int64_t columns = a.outputs - o < PANEL ? a.outputs - o : PANEL;
      for (int64_t r = 0; r < rows; r += ROWS) {
        float* out = a.out + (first + r) * a.outputs + o;
        if (r + ROWS <= rows && columns == PANEL) {
          multiply<ROWS>(in + r * stride, stride, 1, 0, a.inputs, panel, out, a.outputs);
          continue;
        }
        multiply<ROWS>(in + r * stride, stride, 1, 0, a.inputs, panel, block, PANEL);
        for (int64_t i = 0; i < ROWS && r + i < rows; ++i)
          __builtin_memcpy(out + i * a.outputs, block + i * PANEL, uint64_t(columns) * sizeof(float));
      }
    }
  }
}
