// Max and average pools of channels-last frames, and their gradients, on a CPU. Specification: torch's own, bit for bit:
// of equal maxima the first counts, a NaN always does; sums go over windows in order.
//
// A max pool notes the tap it took for each output in a byte, which is all that its gradient needs. The gradient gathers:
// each input adds up the windows that it is in, so nothing is cleared first and nothing is written twice.
// This file is compiled once per instruction set; the including file opens the namespace.

typedef int32_t numbers __attribute__((vector_size(64)));
// Loops over bytes and numbers, which compilers turn into an instruction; __builtin_convertvector becomes 16 of them.
template <class N>
inline void take_taps(numbers& v, const uint8_t* p, N n) {
  int32_t wide[LANES];
  if (int64_t(n) != LANES) __builtin_memset(wide, 0, sizeof wide);
  for (int64_t i = 0; i < n; ++i) wide[i] = p[i];
  __builtin_memcpy(&v, wide, sizeof v);
}

template <class N>
inline void put_taps(uint8_t* p, const numbers& v, N n) {
  int32_t wide[LANES];
  __builtin_memcpy(wide, &v, sizeof v);
  for (int64_t i = 0; i < n; ++i) p[i] = uint8_t(wide[i]);
}

inline void put_floats(float* p, const lanes& v, int64_t n) {
  if (n == LANES) store_lanes(p, v);
  else __builtin_memcpy(p, &v, size_t(n) * sizeof(float));
}

// The places of a window, or the windows of a place: where each begins in memory, and which tap joins the two.
struct Taps {
  int64_t from[225];
  int32_t tap[225];
  int count;
};

inline int64_t at_least_0(int64_t n) { return n > 0 ? n : 0; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// How many channels of a vector there are: all of them, known to the compiler, or the last few.
struct Full {
  constexpr operator int64_t() const { return LANES; }
};

template <bool MAX, class N>
inline void pool_some(const Pool& a, const Taps& taps, int64_t to, int64_t c, N n) {
  lanes best, value;
  numbers tap = numbers{} + taps.tap[0];
  take(best, a.x + taps.from[0] + c, n);
  if (!MAX) best += lanes{};  // as torch begins, with +0
  for (int i = 1; i < taps.count; ++i) {
    take(value, a.x + taps.from[i] + c, n);
    if (!MAX) {
      best += value;
    } else {
      const numbers larger = (value > best) | (value != value);
      best = larger ? value : best;
      tap = larger ? numbers{} + taps.tap[i] : tap;
    }
  }
  put_floats(a.out + to + c, MAX ? best : best / (lanes{} + float(a.kernel * a.kernel)), n);
  if (MAX && a.taps) put_taps(a.taps + to + c, tap, n);
}

template <bool MAX, class N>
inline void unpool_some(const Pool& a, const Taps& taps, int64_t to, int64_t c, N n) {
  lanes sum = {}, grad;
  numbers tap;
  for (int i = 0; i < taps.count; ++i) {
    take(grad, a.x + taps.from[i] + c, n);
    if (!MAX) {
      sum += grad / (lanes{} + float(a.kernel * a.kernel));
    } else {
      take_taps(tap, a.taps + taps.from[i] + c, n);
      sum = tap == taps.tap[i] ? sum + grad : sum;
    }
  }
  put_floats(a.out + to + c, sum, n);
}

template <bool MAX>
void pool_forward_of(const Pool& a, int64_t begin, int64_t end) {
  Taps taps;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t frame = row / a.out_height, top = row % a.out_height * a.stride - a.padding;
    const int64_t last_y = smaller(a.kernel, a.height - top);
    for (int64_t ox = 0; ox < a.out_width; ++ox) {
      const int64_t left = ox * a.stride - a.padding, last_x = smaller(a.kernel, a.width - left);
      taps.count = 0;
      for (int64_t ky = at_least_0(-top); ky < last_y; ++ky)
        for (int64_t kx = at_least_0(-left); kx < last_x; ++kx) {
          taps.from[taps.count] = ((frame * a.height + top + ky) * a.width + left + kx) * a.channels;
          taps.tap[taps.count++] = int32_t(ky * a.kernel + kx);
        }
      const int64_t to = (row * a.out_width + ox) * a.channels;
      int64_t c = 0;
      for (; c + LANES <= a.channels; c += LANES) pool_some<MAX>(a, taps, to, c, Full{});
      if (c < a.channels) pool_some<MAX>(a, taps, to, c, a.channels - c);
    }
  }
}

void pool_forward(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Pool*>(arguments);
  a.is_max ? pool_forward_of<true>(a, begin, end) : pool_forward_of<false>(a, begin, end);
}

// The windows over a place of one axis of the padded frame.
struct Over {
  int64_t first, last;
};
inline Over windows_over(int64_t place, const Pool& a, int64_t windows) {
  return {at_least_0(place - a.kernel + a.stride) / a.stride, smaller(place / a.stride, windows - 1)};
}

template <bool MAX>
void pool_backward_of(const Pool& a, int64_t begin, int64_t end) {
  Taps taps;
  static thread_local Buffer buffer;
  Over* across = reinterpret_cast<Over*>(buffer.at_least(a.width * int64_t(sizeof(Over) / sizeof(float))));
  for (int64_t x = 0; x < a.width; ++x) across[x] = windows_over(x + a.padding, a, a.out_width);  // divisions are slow
  for (int64_t row = begin; row < end; ++row) {
    const int64_t frame = row / a.height, y = row % a.height + a.padding;
    const auto [first_y, last_y] = windows_over(y, a, a.out_height);
    for (int64_t x = a.padding; x < a.width + a.padding; ++x) {
      const auto [first_x, last_x] = across[x - a.padding];
      taps.count = 0;
      for (int64_t oy = first_y; oy <= last_y; ++oy)
        for (int64_t ox = first_x; ox <= last_x; ++ox) {
          taps.from[taps.count] = ((frame * a.out_height + oy) * a.out_width + ox) * a.channels;
          taps.tap[taps.count++] = int32_t((y - oy * a.stride) * a.kernel + x - ox * a.stride);
        }
      const int64_t to = (row * a.width + x - a.padding) * a.channels;
      int64_t c = 0;
      for (; c + LANES <= a.channels; c += LANES) unpool_some<MAX>(a, taps, to, c, Full{});
      if (c < a.channels) unpool_some<MAX>(a, taps, to, c, a.channels - c);
    }
  }
}

void pool_backward(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const Pool*>(arguments);
  a.is_max ? pool_backward_of<true>(a, begin, end) : pool_backward_of<false>(a, begin, end);
}
