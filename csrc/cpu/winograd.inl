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
};

// Both outputs of a padded 3-tap filter on 2 inputs from 3 products: b*(x0+x1) + (c-b)*x1 and b*(x0+x1) + (a-b)*x0.
struct Two {
  static constexpr int64_t IN = 2, PRODUCTS = 3, OUT = 2, FIRST = 0;
  static inline void gather(const lanes* d, lanes* v) { v[0] = d[0] + d[1], v[1] = d[1], v[2] = d[0]; }
  static inline void scatter(const lanes* m, lanes* y) { y[0] = m[0] + m[1], y[1] = m[0] + m[2]; }
};

inline void take(lanes& v, const float* p, int64_t n) {
  if (n == LANES) return load_lanes(v, p);
  v = lanes{};
  __builtin_memcpy(&v, p, uint64_t(n) * sizeof(float));
}
inline void put(float* p, const lanes& v, int64_t n) { __builtin_memcpy(p, &v, uint64_t(n) * sizeof(float)); }

// One tile of a frame to its row of V, whose planes lie `plane` floats apart; channels beyond the last are not written.
template <class Tile>
inline void gather_tile(const Winograd& a, const float* frame, int64_t top, int64_t left, float* V, int64_t plane) {
  for (int64_t c = 0; c < a.inputs; c += LANES) {
    const int64_t n = a.inputs - c < LANES ? a.inputs - c : LANES;
    lanes half[Tile::IN][Tile::PRODUCTS];
    for (int64_t i = 0; i < Tile::IN; ++i) {
      lanes d[Tile::IN];
      for (int64_t j = 0; j < Tile::IN; ++j) {
        const int64_t y = top + i, x = left + j;
        if (y >= 0 && y < a.height && x >= 0 && x < a.width) take(d[j], frame + (y * a.width + x) * a.inputs + c, n);
        else d[j] = lanes{};
      }
      Tile::gather(d, half[i]);
    }
    for (int64_t q = 0; q < Tile::PRODUCTS; ++q) {
      lanes d[Tile::IN], v[Tile::PRODUCTS];
      for (int64_t i = 0; i < Tile::IN; ++i) d[i] = half[i][q];
      Tile::gather(d, v);
      for (int64_t p = 0; p < Tile::PRODUCTS; ++p) put(V + (p * Tile::PRODUCTS + q) * plane + c, v[p], n);
    }
  }
}

template <class Tile>
inline void scatter_tile(const Winograd& a, const float* M, int64_t plane, float* frame, int64_t top, int64_t left) {
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
      for (int64_t i = 0; i < Tile::OUT && top + i < a.height; ++i)
        put(frame + ((top + i) * a.width + left + j) * a.outputs + c, out[i], n);
    }
  }
}

template <class Tile>
void winograd_range(const Winograd& a, int64_t begin, int64_t end) {
  constexpr int64_t planes = Tile::PRODUCTS * Tile::PRODUCTS;
  const int64_t padded = (a.outputs + PANEL - 1) / PANEL * PANEL;
  const int64_t v_plane = ROWS * a.inputs, m_plane = ROWS * padded;
  static thread_local Buffer buffer;
  float* V = buffer.at_least(planes * (v_plane + m_plane));
  float* M = V + planes * v_plane;
  for (int64_t first = begin; first < end; first += ROWS) {
    const int64_t rows = end - first < ROWS ? end - first : ROWS;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = first + r, frame = row / (a.tiles_x * a.tiles_y);
      const int64_t left = row % a.tiles_x * Tile::OUT, top = row / a.tiles_x % a.tiles_y * Tile::OUT;
      gather_tile<Tile>(a, a.x + frame * a.height * a.width * a.inputs, top + Tile::FIRST, left + Tile::FIRST,
                        V + r * a.inputs, v_plane);
    }
    for (int64_t p = 0; p < planes; ++p)
      for (int64_t o = 0; o < padded; o += PANEL)
        multiply<ROWS>(V + p * v_plane, a.inputs, 1, 0, a.inputs, a.weight + (p * padded + o) * a.inputs,
                       M + p * m_plane + o, padded);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = first + r, frame = row / (a.tiles_x * a.tiles_y);
      const int64_t left = row % a.tiles_x * Tile::OUT, top = row / a.tiles_x % a.tiles_y * Tile::OUT;
      scatter_tile<Tile>(a, M + r * padded, m_plane, a.out + frame * a.height * a.width * a.outputs, top, left);
    }
  }
}

void winograd(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Winograd*>(arguments);
  a.tile == 4 ? winograd_range<Four>(a, begin, end) : winograd_range<Two>(a, begin, end);
}
