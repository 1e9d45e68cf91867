// Batch norm's passes over channels, on a CPU. Specification: fastsnn/ops/norm_fire/reference.py.
//
//     channel_sums      first[c]  = sum of g[r, c] over the rows r         (of x, where there is no g)
//                       second[c] = sum of g[r, c] * (x[r, c] - mean[c])   (of (x - mean)^2, where there is no g)
//     channel_affine    out[r, c] = a[c] * g[r, c] + b[c] * x[r, c] + d[c]
//
// Channels are innermost. A task of channel_sums is a chunk of rows, whose sums go to a place of their own and are added up
// in order afterwards: the number of threads changes no bit. Sums of SHORT rows are float32, all else is double.
// This file is compiled once per instruction set; the including file opens the namespace.

constexpr int64_t SHORT = 16;

template <bool HAS_G>
void sum_rows(const float* g, const float* x, const float* mean, int64_t rows, int64_t channels, int64_t from,
              int64_t n, double* first, double* second) {
  float one[LANES] = {}, two[LANES] = {};
  for (int64_t r = 0; r < rows; ++r) {
    const float* __restrict x_row = x + r * channels + from;
    const float* __restrict g_row = HAS_G ? g + r * channels + from : x_row;
#pragma GCC unroll 16
    for (int64_t c = 0; c < LANES; ++c) {
      if (c >= n) break;
      const float d = x_row[c] - mean[from + c], weight = HAS_G ? g_row[c] : d;
      one[c] += HAS_G ? weight : x_row[c];
      two[c] += weight * d;
    }
  }
  for (int64_t c = 0; c < n; ++c) first[from + c] += double(one[c]), second[from + c] += double(two[c]);
}

template <bool HAS_G>
void sum_full_rows(const float* g, const float* x, const float* mean, int64_t rows, int64_t channels, int64_t from,
                   double* first, double* second) {
  lanes one = {}, two = {}, center;
  load_lanes(center, mean + from);
  for (int64_t r = 0; r < rows; ++r) {
    lanes value, weight;
    load_lanes(value, x + r * channels + from);
    const lanes d = value - center;
    if (HAS_G) load_lanes(weight, g + r * channels + from), one += weight;
    else weight = d, one += value;
    two += weight * d;
  }
  for (int64_t c = 0; c < LANES; ++c) first[from + c] += double(one[c]), second[from + c] += double(two[c]);
}

template <bool HAS_G>
void channel_sums_of(const Channels& a, int64_t begin, int64_t end) {
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    double* first = a.partial + chunk * 2 * a.channels;
    double* second = first + a.channels;
    for (int64_t c = 0; c < 2 * a.channels; ++c) first[c] = 0.0;
    const int64_t last = (chunk + 1) * a.chunk_rows < a.rows ? (chunk + 1) * a.chunk_rows : a.rows;
    for (int64_t row = chunk * a.chunk_rows; row < last; row += SHORT) {
      const int64_t rows = last - row < SHORT ? last - row : SHORT;
      const float* x = a.x + row * a.channels;
      const float* g = HAS_G ? a.g + row * a.channels : nullptr;
      int64_t from = 0;
      for (; from + LANES <= a.channels; from += LANES)
        sum_full_rows<HAS_G>(g, x, a.mean, rows, a.channels, from, first, second);
      if (from < a.channels) sum_rows<HAS_G>(g, x, a.mean, rows, a.channels, from, a.channels - from, first, second);
    }
  }
}

void channel_sums(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Channels*>(arguments);
  a.g ? channel_sums_of<true>(a, begin, end) : channel_sums_of<false>(a, begin, end);
}

void channel_affine(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Channels*>(arguments);
  for (int64_t r = begin; r < end; ++r) {
    const float* g = a.g + r * a.channels;  // may be `out`
    const float* x = a.x + r * a.channels;
    float* out = a.out + r * a.channels;
    int64_t c = 0;
    for (; c + LANES <= a.channels; c += LANES) {
      lanes gradient, value, factor, slope, constant;
      load_lanes(gradient, g + c), load_lanes(value, x + c);
      load_lanes(factor, a.factor + c), load_lanes(slope, a.slope + c), load_lanes(constant, a.constant + c);
      store_lanes(out + c, factor * gradient + slope * value + constant);
    }
    for (; c < a.channels; ++c) out[c] = a.factor[c] * g[c] + a.slope[c] * x[c] + a.constant[c];
  }
}
