// A 3x3 convolution with padding 1 in fewer products, on a CPU. Specification: fastsnn/ops/winograd/reference.py.
//
//     V[p, row] = sum over the tile of gather[p] * x          row = one tile of one frame
//     M[p, row] = V[p, row] @ U[p]                            a matrix product over channels for each of the 36 (9) planes
//     y[tile]   = sum over p of scatter[p] * M[p, row]
//
// Channels are innermost everywhere. Both transforms are separable: columns, then rows. A block of ROWS goes through all
// three steps while its V and M stay in the second-level cache; rows do not depend on each other, so neither the block
// nor the number of threads changes a bit.
// This file is compiled once per instruction set; the including file opens the namespace.

// 4 outputs of a 3-tap filter from 6 inputs and 6 products: Cook-Toom at 0, 1, -1, 2, -1/2 and infinity. Of the usual
// sets of points this one is the least inexact: rms error 9 times that of the plain sum, 14 times with 2 and -2.
struct Four {
  static constexpr int64_t IN = 6, PRODUCTS = 6, OUT = 4, FIRST = -1;
  static constexpr bool FILLS_ZEROS = true;  // sums that cancel in exact numbers leave a remainder here
  static constexpr double FILTERS[6][3] = {{1 / 2.0, 0, 0},          {1 / 6.0, 1 / 6.0, 1 / 6.0},
                                           {1 / 6.0, -1 / 6.0, 1 / 6.0}, {1 / 30.0, 1 / 15.0, 2 / 15.0},
                                           {16 / 15.0, -8 / 15.0, 4 / 15.0}, {0, 0, 1 / 2.0}};
  static inline void gather(const lanes* d, lanes* v) {
    v[0] = 2.0f * (d[0] + d[4]) + 3.0f * (d[1] - d[3]) - 4.0f * d[2];
    v[1] = 2.0f * (d[1] - d[4]) + 5.0f * d[2] + d[3];
    v[2] = 2.0f * (d[1] + d[4]) + d[2] - 5.0f * d[3];
    v[3] = 2.0f * (d[4] - d[2]) + (d[3] - d[1]);
    v[4] = 2.0f * (d[3] - d[1]) + (d[2] - d[4]);
    v[5] = 2.0f * (d[1] + d[5]) + 3.0f * (d[2] - d[4]) - 4.0f * d[3];
  }
  static inline void scatter(const lanes* m, lanes* y) {
    const lanes even = m[1] + m[2], odd = m[1] - m[2];
    y[0] = m[0] + even + m[3] + m[4];
    y[1] = odd + 2.0f * m[3] - 0.5f * m[4];
    y[2] = even + 4.0f * m[3] + 0.25f * m[4];
    y[3] = odd + 8.0f * m[3] - 0.125f * m[4] + m[5];
  }
  static inline void spread(const lanes* y, lanes* m) {  // scatter, transposed
    const lanes even = y[0] + y[2], odd = y[1] + y[3];
    m[0] = y[0];
    m[1] = even + odd;
    m[2] = even - odd;
    m[3] = y[0] + 2.0f * y[1] + 4.0f * y[2] + 8.0f * y[3];
    m[4] = y[0] - 0.5f * y[1] + 0.25f * y[2] - 0.125f * y[3];
    m[5] = y[3];
  }
};

// Both outputs of a padded 3-tap filter on 2 inputs from 3 products: b*(x0+x1) + (c-b)*x1 and b*(x0+x1) + (a-b)*x0.
struct Two {
  static constexpr int64_t IN = 2, PRODUCTS = 3, OUT = 2, FIRST = 0;
  static constexpr bool FILLS_ZEROS = false;  // every output reads the whole map
  static constexpr double FILTERS[3][3] = {{0, 1, 0}, {0, -1, 1}, {1, -1, 0}};
  static inline void gather(const lanes* d, lanes* v) { v[0] = d[0] + d[1], v[1] = d[1], v[2] = d[0]; }
  static inline void scatter(const lanes* m, lanes* y) { y[0] = m[0] + m[1], y[1] = m[0] + m[2]; }
  static inline void spread(const lanes* y, lanes* m) { m[0] = y[0] + y[1], m[1] = y[0], m[2] = y[1]; }
};

// The input of a tile, or the gradient at its output.
template <class Tile>
struct Gather {
  static constexpr int64_t SIZE = Tile::IN, FIRST = Tile::FIRST;
  static inline void transform(const lanes* d, lanes* v) { Tile::gather(d, v); }
};
template <class Tile>
struct Spread {
  static constexpr int64_t SIZE = Tile::OUT, FIRST = 0;
  static inline void transform(const lanes* d, lanes* v) { Tile::spread(d, v); }
};

// One tile of a frame to its row of V, whose planes lie `plane` elements apart; channels beyond the last are not written.
// Tells whether `Kind` could take all of it.
template <class Tile, class Side, class Kind>
inline bool gather_tile(const float* frame, int64_t height, int64_t width, int64_t channels, int64_t top, int64_t left,
                        typename Kind::Element* V, int64_t plane) {
  bool exact = true;
  for (int64_t c = 0; c < channels; c += LANES) {
    const int64_t n = channels - c < LANES ? channels - c : LANES;
    lanes half[Side::SIZE][Tile::PRODUCTS];
    for (int64_t i = 0; i < Side::SIZE; ++i) {
      lanes d[Side::SIZE];
      for (int64_t j = 0; j < Side::SIZE; ++j) {
        const int64_t y = top + Side::FIRST + i, x = left + Side::FIRST + j;
        if (y >= 0 && y < height && x >= 0 && x < width) take(d[j], frame + (y * width + x) * channels + c, n);
        else d[j] = lanes{};
      }
      Side::transform(d, half[i]);
    }
    for (int64_t q = 0; q < Tile::PRODUCTS; ++q) {
      lanes d[Side::SIZE], v[Tile::PRODUCTS];
      for (int64_t i = 0; i < Side::SIZE; ++i) d[i] = half[i][q];
      Side::transform(d, v);
      for (int64_t p = 0; p < Tile::PRODUCTS; ++p) exact &= Kind::put(V + (p * Tile::PRODUCTS + q) * plane + c, v[p], n);
    }
  }
  return exact;
}

constexpr uint64_t EVERYWHERE = ~uint64_t(0);

// Bit i * IN + j: whether pixel (i, j) of the tile's input has a channel that is not 0. Four pixels meet every window.
template <class Tile>
inline uint64_t occupied(const Winograd& a, const float* frame, int64_t top, int64_t left) {
  if (!Tile::FILLS_ZEROS) return EVERYWHERE;
  const auto at = [&](int64_t i, int64_t j) {
    const int64_t y = top + Tile::FIRST + i, x = left + Tile::FIRST + j;
    const bool inside = y >= 0 && y < a.height && x >= 0 && x < a.width;
    return inside && has_spike(frame + (y * a.width + x) * a.inputs, a.inputs);
  };
  if (at(1, 1) && at(1, 4) && at(4, 1) && at(4, 4)) return EVERYWHERE;
  uint64_t found = 0;
  for (int64_t i = 0; i < Tile::IN; ++i)
    for (int64_t j = 0; j < Tile::IN; ++j) found |= uint64_t(at(i, j)) << (i * Tile::IN + j);
  return found;
}

// An output whose window holds only zeros is 0, as in the plain sum; NaN where a weight, or an input of the tile, is not
// finite.
template <class Tile>
inline bool is_empty(uint64_t occupied, int64_t i, int64_t j) {
  constexpr uint64_t window = 7 | 7 << Tile::IN | 7 << 2 * Tile::IN;
  return Tile::FILLS_ZEROS && !(occupied & window << (i * Tile::IN + j));
}

template <class Tile>
inline void scatter_tile(const Winograd& a, const float* M, int64_t plane, float* frame, int64_t top, int64_t left,
                         uint64_t occupied) {
  for (int64_t c = 0; c < a.outputs; c += LANES) {
    const int64_t n = a.outputs - c < LANES ? a.outputs - c : LANES;
    lanes half[Tile::PRODUCTS][Tile::OUT];
    for (int64_t p = 0; p < Tile::PRODUCTS; ++p) {
      lanes m[Tile::PRODUCTS];
      for (int64_t q = 0; q < Tile::PRODUCTS; ++q) load_lanes(m[q], M + (p * Tile::PRODUCTS + q) * plane + c);
      Tile::scatter(m, half[p]);
    }
    for (int64_t j = 0; j < Tile::OUT && left + j < a.width; ++j) {
      lanes m[Tile::PRODUCTS], out[Tile::OUT];
      for (int64_t p = 0; p < Tile::PRODUCTS; ++p) m[p] = half[p][j];
      Tile::scatter(m, out);
      for (int64_t i = 0; i < Tile::OUT && top + i < a.height; ++i) {
        if (is_empty<Tile>(occupied, i, j)) out[i] = out[i] * 0.0f + 0.0f;
        Float::put(frame + ((top + i) * a.width + left + j) * a.outputs + c, out[i], n);
      }
    }
  }
}

// Tiles that `Kind` cannot take are filtered in float32, each by itself, so that a tile's bits do not depend on others.
template <class Tile, class Kind>
void winograd_range(const Winograd& a, const void* weight, int64_t begin, int64_t end) {
  using Element = typename Kind::Element;
  constexpr int64_t planes = Tile::PRODUCTS * Tile::PRODUCTS;
  const int64_t padded = (a.outputs + PANEL - 1) / PANEL * PANEL;
  const int64_t inputs = (a.inputs + Kind::GROUP - 1) / Kind::GROUP * Kind::GROUP;
  const int64_t v_plane = ROWS * inputs, m_plane = ROWS * padded;
  static thread_local Buffer buffer;
  float* M = buffer.at_least(planes * (v_plane + m_plane));
  Element* V = reinterpret_cast<Element*>(M + planes * m_plane);
  if (inputs > a.inputs)
    for (int64_t i = a.inputs; i < planes * v_plane; i += inputs) V[i] = 0;
  for (int64_t first = begin; first < end; first += ROWS) {
    const int64_t rows = end - first < ROWS ? end - first : ROWS;
    uint64_t spikes[ROWS];
    bool taken[ROWS], all = true, any = false;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = first + r, frame = row / (a.tiles_x * a.tiles_y);
      const int64_t left = row % a.tiles_x * Tile::OUT, top = row / a.tiles_x % a.tiles_y * Tile::OUT;
      const float* x = a.x + frame * a.height * a.width * a.inputs;
      spikes[r] = occupied<Tile>(a, x, top, left);
      taken[r] = gather_tile<Tile, Gather<Tile>, Kind>(x, a.height, a.width, a.inputs, top, left, V + r * inputs, v_plane);
      all &= taken[r], any |= taken[r];
    }
    for (int64_t p = 0; p < planes && any; ++p)
      for (int64_t o = 0; o < padded; o += PANEL)
        Kind::template product<ROWS>(V + p * v_plane, inputs, inputs,
                                     static_cast<const Element*>(weight) + (p * padded + o) / PANEL * Kind::panel(inputs),
                                     M + p * m_plane + o, padded);
    for (int64_t r = 0; r < rows; ++r) {
      if (!taken[r]) continue;
      const int64_t row = first + r, frame = row / (a.tiles_x * a.tiles_y);
      const int64_t left = row % a.tiles_x * Tile::OUT, top = row / a.tiles_x % a.tiles_y * Tile::OUT;
      float* out = a.out + frame * a.height * a.width * a.outputs;
      scatter_tile<Tile>(a, M + r * padded, m_plane, out, top, left, spikes[r]);
    }
    if constexpr (!std::is_same<Kind, Float>::value)
      for (int64_t r = 0; r < rows && !all;) {  // runs of tiles, so that many take no longer than in float32 alone
        int64_t until = r;
        while (until < rows && !taken[until]) ++until;
        if (until > r) winograd_range<Tile, Float>(a, a.exact, first + r, first + until);
        r = until + 1;
      }
  }
}

template <class Kind>
void winograd_of(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Winograd*>(arguments);
  a.tile == 4 ? winograd_range<Four, Kind>(a, a.weight, begin, end) : winograd_range<Two, Kind>(a, a.weight, begin, end);
}

void winograd(int64_t begin, int64_t end, void* arguments) { winograd_of<Float>(begin, end, arguments); }

// U = filters w filters^T in double, rounded once: a task is an input channel of a panel.
template <class Tile>
void filters_range(const WinogradFilters& a, int64_t begin, int64_t end) {
  constexpr int64_t P = Tile::PRODUCTS;
  const int64_t padded = (a.outputs + PANEL - 1) / PANEL * PANEL;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t panel = task / a.inputs, input = task % a.inputs;
    double w[3][3][PANEL], half[P][3][PANEL];
    for (int64_t o = 0; o < PANEL; ++o) {
      const int64_t output = panel * PANEL + o;
      const float* from = a.weight + output * a.output_stride + input * a.input_stride;
      for (int64_t k = 0; k < 9; ++k) w[k / 3][k % 3][o] = output < a.outputs ? double(from[k * a.tap_stride]) : 0.0;
    }
    for (int64_t p = 0; p < P; ++p)
      for (int64_t k = 0; k < 3; ++k)
        for (int64_t o = 0; o < PANEL; ++o)
          half[p][k][o] = Tile::FILTERS[p][0] * w[0][k][o] + Tile::FILTERS[p][1] * w[1][k][o] +
                          Tile::FILTERS[p][2] * w[2][k][o];
    for (int64_t p = 0; p < P; ++p)
      for (int64_t q = 0; q < P; ++q) {
        float* out = a.out + ((p * P + q) * padded + panel * PANEL) * a.inputs + input * PANEL;
        for (int64_t o = 0; o < PANEL; ++o)
          out[o] = float(Tile::FILTERS[q][0] * half[p][0][o] + Tile::FILTERS[q][1] * half[p][1][o] +
                         Tile::FILTERS[q][2] * half[p][2][o]);
      }
  }
}

void winograd_filters(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const WinogradFilters*>(arguments);
  a.tile == 4 ? filters_range<Four>(a, begin, end) : filters_range<Two>(a, begin, end);
}

template <class Tile, class Side>
void planes_range(const WinogradPlanes& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t frame = row / (a.tiles_x * a.tiles_y), left = row % a.tiles_x * Tile::OUT;
    const int64_t top = row / a.tiles_x % a.tiles_y * Tile::OUT;
    gather_tile<Tile, Side, Float>(a.frames + frame * a.height * a.width * a.channels, a.height, a.width, a.channels, top, left,
                            a.out + row * a.channels, a.rows * a.channels);
  }
}

void winograd_planes(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const WinogradPlanes*>(arguments);
  if (a.tile == 4) a.is_gradient ? planes_range<Four, Spread<Four>>(a, begin, end)
                                 : planes_range<Four, Gather<Four>>(a, begin, end);
  else a.is_gradient ? planes_range<Two, Spread<Two>>(a, begin, end) : planes_range<Two, Gather<Two>>(a, begin, end);
}
