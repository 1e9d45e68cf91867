// A matrix product with weights in panels, on a CPU: out [rows, outputs] = in [rows, inputs] . weight.
//
// A task is a chunk of rows that stays in the second-level cache while the panels stream past. Every element is one sum
// in one order, so neither the number of rows nor that of threads changes a bit of it.
// This file is compiled once per instruction set; the including file opens the namespace.

template <class Side>
void matrix_of(int64_t begin, int64_t end, void* arguments) {
  using Element = typename Side::Element;
  const auto& a = *static_cast<const Matrix*>(arguments);
  const int64_t inputs = (a.inputs + Side::GROUP - 1) / Side::GROUP * Side::GROUP;
  const int64_t stride = inputs + LANES;  // rows 4096 bytes apart would share the same places of the first-level cache
  static thread_local Buffer buffer;
  float* block = buffer.at_least(ROWS * PANEL + CHUNK * stride);
  Element* in = reinterpret_cast<Element*>(block + ROWS * PANEL);
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t first = chunk * CHUNK, rows = a.rows - first < CHUNK ? a.rows - first : CHUNK;
    for (int64_t r = 0; r < rows; ++r) {
      Side::take_row(in + r * stride, a.x + (first + r) * a.inputs, a.inputs);
      for (int64_t i = a.inputs; i < inputs; ++i) in[r * stride + i] = 0;
    }
    for (int64_t i = rows * stride; i < (rows + ROWS - 1) / ROWS * ROWS * stride; ++i) in[i] = 0;
    for (int64_t o = 0; o < a.outputs; o += PANEL) {
      const Element* panel = static_cast<const Element*>(a.weight) + o * inputs;
      const int64_t columns = a.outputs - o < PANEL ? a.outputs - o : PANEL;
      for (int64_t r = 0; r < rows; r += ROWS) {
        float* out = a.out + (first + r) * a.outputs + o;
        if (r + ROWS <= rows && columns == PANEL) {
          Side::template product<ROWS>(in + r * stride, stride, inputs, panel, out, a.outputs);
          continue;
        }
        Side::template product<ROWS>(in + r * stride, stride, inputs, panel, block, PANEL);
        for (int64_t i = 0; i < ROWS && r + i < rows; ++i)
          __builtin_memcpy(out + i * a.outputs, block + i * PANEL, uint64_t(columns) * sizeof(float));
      }
    }
  }
}

void matrix(int64_t begin, int64_t end, void* arguments) { matrix_of<Float>(begin, end, arguments); }
