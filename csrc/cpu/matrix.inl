// A matrix product with weights in panels, on a CPU: out [rows, outputs] = in [rows, inputs] . weight.
//
// A task is a chunk of rows that stays in the second-level cache while the panels stream past. Every element is one sum
// in one order, so neither the number of rows nor that of threads changes a bit of it.
// This file is compiled once per instruction set; the including file opens the namespace.

template <class Side>
inline int64_t padded_inputs(int64_t inputs) { return (inputs + Side::GROUP - 1) / Side::GROUP * Side::GROUP; }

// Elements from row to row of a chunk: rows 4096 bytes apart would share the same places of the first-level cache.
template <class Side>
inline int64_t row_stride(int64_t inputs) { return padded_inputs<Side>(inputs) + LANES; }

template <class Side>
inline bool take_row(typename Side::Element* to, const float* from, int64_t inputs) {
  for (int64_t i = inputs; i < padded_inputs<Side>(inputs); ++i) to[i] = 0;
  return Side::take_row(to, from, inputs);
}

// A chunk of rows, in [CHUNK, row_stride], times all panels; `block` holds ROWS * PANEL floats, for what hangs over.
template <class Side>
void multiply_chunk(typename Side::Element* in, int64_t rows, int64_t inputs, const typename Side::Element* weight,
                    int64_t outputs, float* out, float* block) {
  const int64_t stride = row_stride<Side>(inputs), length = padded_inputs<Side>(inputs);
  for (int64_t i = rows * stride; i < (rows + ROWS - 1) / ROWS * ROWS * stride; ++i) in[i] = 0;
  for (int64_t o = 0; o < outputs; o += PANEL) {
    const auto* panel = weight + o / PANEL * Side::panel(length);
    const int64_t columns = outputs - o < PANEL ? outputs - o : PANEL;
    for (int64_t r = 0; r < rows; r += ROWS) {
      float* to = out + r * outputs + o;
      if (r + ROWS <= rows && columns == PANEL) {
        Side::template product<ROWS>(in + r * stride, stride, length, panel, to, outputs);
        continue;
      }
      Side::template product<ROWS>(in + r * stride, stride, length, panel, block, PANEL);
      for (int64_t i = 0; i < ROWS && r + i < rows; ++i)
        __builtin_memcpy(to + i * outputs, block + i * PANEL, uint64_t(columns) * sizeof(float));
    }
  }
}

// The same for spikes, which are mostly 0: sums over what is not. A sum in the same order that leaves out products of 0 and
// a finite weight has the same bits, so either way may be taken, chunk by chunk. Returns false, and nothing is done, where
// too many inputs (or pairs of them, where a panel holds pairs) are not 0.
template <int N>
struct Count {
  constexpr int operator()() const { return N; }
};
constexpr float MOST_SPIKES[] = {0.3f, 0.42f};  // the share from which on the dense product is faster: of inputs, of pairs

template <class Side>
bool multiply_spikes(const typename Side::Element* in, int64_t rows, int64_t inputs, const typename Side::Element* weight,
                     int64_t outputs, float* out, float* block) {
  const int64_t stride = row_stride<Side>(inputs), length = padded_inputs<Side>(inputs), groups = length / Side::GROUP;
  const float most = MOST_SPIKES[Side::GROUP - 1];
  static thread_local Buffer buffer;
  auto* places = reinterpret_cast<int32_t*>(buffer.at_least(CHUNK * groups + LANES));
  int64_t begin[CHUNK + 1], n = 0;
  for (int64_t r = 0; r < rows; ++r) {
    begin[r] = n;
    n = Side::places(in + r * stride, length, places, n);
    if (r % 8 == 7 && n > most * float((r + 1) * groups)) return false;
  }
  begin[rows] = n;
  if (n > most * float(rows * groups)) return false;
  const auto add_up = [&](auto panels, int64_t o, int64_t columns) {
    const int64_t width = panels() * PANEL;
    const auto* panel = weight + o / PANEL * Side::panel(length);
    for (int64_t r = 0; r < rows; ++r) {
      const auto* row = in + r * stride;
      float *to = out + r * outputs + o, *whole = columns == width ? to : block;
      Side::template add_up<panels()>(row, places + begin[r], places + begin[r + 1], panel, length, whole);
      if (whole == block) __builtin_memcpy(to, block, uint64_t(columns) * sizeof(float));
    }
    return width;
  };
  for (int64_t o = 0; o < outputs;) {
    const int64_t rest = outputs - o;
    if (WIDE >= 4 && rest >= 4 * PANEL) o += add_up(Count<4>(), o, 4 * PANEL);
    else if (WIDE >= 2 && rest >= 2 * PANEL) o += add_up(Count<2>(), o, 2 * PANEL);
    else o += add_up(Count<1>(), o, rest < PANEL ? rest : PANEL);
  }
  return true;
}

// A chunk of rows by whichever is faster; `is_finite` as in Matrix.
template <class Side>
void multiply_rows(typename Side::Element* in, int64_t rows, int64_t inputs, const void* panels, int64_t outputs,
                   float* out, float* block, bool is_finite) {
  const auto* weight = static_cast<const typename Side::Element*>(panels);
  if constexpr (Side::SKIPS)
    if (is_finite && multiply_spikes<Side>(in, rows, inputs, weight, outputs, out, block)) return;
  multiply_chunk<Side>(in, rows, inputs, weight, outputs, out, block);
}

// Rows that `Side` cannot take, kept aside: they are multiplied in float32 by `exact`, each by itself, so that a row's bits do
// not depend on others.
struct Aside {
  int64_t count = 0, places[CHUNK];
  Buffer rows, out;

  void keep(const float* row, int64_t place, int64_t inputs) {
    float* to = rows.at_least(CHUNK * row_stride<Float>(inputs)) + count * row_stride<Float>(inputs);
    take_row<Float>(to, row, inputs);
    places[count++] = place;
  }

  void multiply(const float* exact, int64_t inputs, int64_t outputs, float* to, float* block) {
    if (!count) return;
    float* products = out.at_least(CHUNK * outputs);
    multiply_rows<Float>(rows.data, count, inputs, exact, outputs, products, block, true);
    for (int64_t r = 0; r < count; ++r)
      __builtin_memcpy(to + places[r] * outputs, products + r * outputs, uint64_t(outputs) * sizeof(float));
    count = 0;
  }
};

template <class Side>
void matrix_of(int64_t begin, int64_t end, void* arguments) {
  using Element = typename Side::Element;
  const auto& a = *static_cast<const Matrix*>(arguments);
  const int64_t stride = row_stride<Side>(a.inputs);
  static thread_local Buffer buffer;
  static thread_local Aside aside;
  float* block = buffer.at_least(ROWS * PANEL + CHUNK * stride);
  Element* in = reinterpret_cast<Element*>(block + ROWS * PANEL);
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t first = chunk * CHUNK, rows = a.rows - first < CHUNK ? a.rows - first : CHUNK;
    float* out = a.out + first * a.outputs;
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = a.x + (first + r) * a.inputs;
      if (!take_row<Side>(in + r * stride, row, a.inputs)) aside.keep(row, r, a.inputs);
    }
    if (aside.count < rows) multiply_rows<Side>(in, rows, a.inputs, a.weight, a.outputs, out, block, a.is_finite);
    aside.multiply(a.exact, a.inputs, a.outputs, out, block);
  }
}

void matrix(int64_t begin, int64_t end, void* arguments) { matrix_of<Float>(begin, end, arguments); }
