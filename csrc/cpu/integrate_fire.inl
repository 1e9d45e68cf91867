// integrate_fire on a CPU. Specification: fastsnn/ops/integrate_fire/reference.py.
//
//     h[t] = v[t-1] + scale[c] * x[t] + shift[c]     charge, with batch norm's affine in front
//     s[t] = h[t] >= v_threshold                     fire
//     v[t] = v_reset where s[t] else h[t]            reset
//     y[t] = s[t] (+) residual[t]                    junction: add, and, iand, and_not
//
// A thread owns a range of neurons and walks it in blocks: v stays in the first-level cache while
// the T steps stream past. The backward pass walks forward once to recompute h bit for bit, then
// back. Nothing is contracted into FMAs (-ffp-contract=off), so spikes equal the reference's.
// On request the backward pass counts the rows it has at hand (tally.inl), without an "and" junction: the gradients at the
// spikes, at the current and at x. This file is compiled once per instruction set; the including file opens the namespace.

constexpr int64_t BLOCK = 512;         // neurons: 2 KiB of voltage; 256 to 4096 measured within 10 % of each other
constexpr int64_t TRACE = 8 * BLOCK;   // floats of recomputed h: 16 KiB, inside the L1 (64 KiB was 15 % slower)
constexpr int64_t COUNTED_TRACE = 10 * BLOCK;  // where rows are counted: longer ones have fewer ends

inline float load(const float* p) { return *p; }
inline void store(float* p, float value) { *p = value; }

struct bfloat16 { uint16_t bits; };
inline float load(const bfloat16* p) {
  union { uint32_t u; float f; } c;
  c.u = uint32_t(p->bits) << 16;
  return c.f;
}
inline void store(bfloat16* p, float value) {  // round to nearest even; NaN stays NaN
  union { float f; uint32_t u; } c;
  c.f = value;
  const uint32_t rounded = (c.u + 0x7FFFu + ((c.u >> 16) & 1u)) >> 16;
  p->bits = uint16_t(value != value ? 0x7FC0u : rounded);
}

template <int CHARGE>
inline float charged(float v, float x, float rest, float tau) {
  if (CHARGE == INTEGRATE) return v + x;
  if (CHARGE == LEAK_DECAY_INPUT) return v + (x - (v - rest)) / tau;
  return v - (v - rest) / tau + x;
}

inline float exponential(float x) {  // within 2 ulp on [-87, 88]; plain arithmetic, so it vectorises
  x = x > -87.0f ? x : -87.0f;  // NaN too: it has no integer
  x = x < 88.0f ? x : 88.0f;
  const float n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;  // nearest integer
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  union { int32_t i; float f; } power;
  power.i = (int32_t(n) + 127) << 23;
  return (p * r * r + r + 1.0f) * power.f;
}

struct Width {  // a surrogate's constants, rounded once as torch rounds a Python scalar
  float a, b;
  Width(int32_t surrogate, double alpha) {
    if (surrogate == ATAN) a = float(3.14159265358979323846 / 2 * alpha), b = float(alpha / 2);
    else if (surrogate == SIGMOID) a = float(alpha), b = a;
    else if (surrogate == TRIANGLE) a = float(alpha * alpha), b = float(alpha);
    else a = float(0.5 / alpha), b = float(alpha);
  }
};

template <int SURROGATE>
inline float surrogate_gradient(float u, Width w) {
  if (SURROGATE == ATAN) {
    const float z = u * w.a;
    return 1.0f / (1.0f + z * z) * w.b;
  }
  if (SURROGATE == SIGMOID) {
    const float s = 1.0f / (1.0f + exponential(-(u * w.a)));
    const float gradient = (1.0f - s) * s * w.a;
    return u != u ? u : u * w.a < -88.0f ? 0.0f : gradient;  // exp(88) is not infinite, as it should be from there
  }
  const float distance = __builtin_fabsf(u);
  if (SURROGATE == TRIANGLE) {
    const float d = w.b - w.a * distance;
    return d < 0.0f ? 0.0f : d;
  }
  return distance < w.a ? w.b : 0.0f;
}

// Rows of the next block, asked for while this one is computed: they are too short for the processor to see them coming.
// Between arithmetic that costs nothing, in a loop of its own a sixth of the backward pass.
struct Next {
  const void* read;
  void* write;
};

// Does `one` to 0, ..., n - 1, a line of the cache at a time.
template <class READ, class WRITE, class One>
inline void by_lines(int64_t n, Next next, One one) {
  const READ* read = static_cast<const READ*>(next.read);
  WRITE* write = static_cast<WRITE*>(next.write);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    __builtin_prefetch(read + i, 0, 2);
    if (write) __builtin_prefetch(write + i, 1, 2);
    for (int k = 0; k < 16; ++k) one(i + k);
  }
  for (; i < n; ++i) one(i);
}

// One step of one block: updates v, writes spikes.
template <class IN, class OUT, bool AFFINE, int CHARGE, bool HARD>
void fire_block(const IN* __restrict x, OUT* __restrict out, float* __restrict v, const float* __restrict scale,
                const float* __restrict shift, int64_t n, float threshold, float reset, float tau, Next next) {
  const float rest = HARD ? reset : 0.0f;
  by_lines<IN, IN>(n, next, [&](int64_t i) {
    float current = load(x + i);
    if (AFFINE) current = current * scale[i] + shift[i];
    const float h = charged<CHARGE>(v[i], current, rest, tau);
    const float spike = h >= threshold ? 1.0f : 0.0f;
    v[i] = HARD ? (h >= threshold ? reset : h) : h - spike * threshold;
    store(out + i, spike);
  });
}

// The same for the backward pass: writes h. v is not stored: it follows from the h before (from v itself at the START).
template <class IN, bool START, bool AFFINE, int CHARGE, bool HARD>
void recompute_block(const IN* __restrict x, const float* __restrict before, float* __restrict h,
                     const float* __restrict scale, const float* __restrict shift, int64_t n, float threshold,
                     float reset, float tau, Next next) {
  const float rest = HARD ? reset : 0.0f;
  by_lines<IN, IN>(n, next, [&](int64_t i) {
    float current = load(x + i), v = before[i];
    if (AFFINE) current = current * scale[i] + shift[i];
    if (!START) v = HARD ? (v >= threshold ? reset : v) : v - (v >= threshold ? 1.0f : 0.0f) * threshold;
    h[i] = charged<CHARGE>(v, current, rest, tau);
  });
}

template <class IN, class OUT>
using FireBlock = void (*)(const IN*, OUT*, float*, const float*, const float*, int64_t, float, float, float, Next);
template <class IN>
using RecomputeBlock = void (*)(const IN*, const float*, float*, const float*, const float*, int64_t, float, float, float,
                                Next);

template <class IN, class OUT, bool AFFINE, bool HARD>
FireBlock<IN, OUT> choose_fire(int32_t charge) {
  if (charge == INTEGRATE) return fire_block<IN, OUT, AFFINE, INTEGRATE, HARD>;
  if (charge == LEAK_DECAY_INPUT) return fire_block<IN, OUT, AFFINE, LEAK_DECAY_INPUT, HARD>;
  return fire_block<IN, OUT, AFFINE, LEAK_ONLY, HARD>;
}

template <class IN, class OUT>
FireBlock<IN, OUT> choose_fire(const IntegrateFire& a) {
  if (a.scale) return a.hard_reset ? choose_fire<IN, OUT, true, true>(a.charge)
                                   : choose_fire<IN, OUT, true, false>(a.charge);
  return a.hard_reset ? choose_fire<IN, OUT, false, true>(a.charge)
                      : choose_fire<IN, OUT, false, false>(a.charge);
}

template <class IN, bool START, bool AFFINE, bool HARD>
RecomputeBlock<IN> choose_recompute(int32_t charge) {
  if (charge == INTEGRATE) return recompute_block<IN, START, AFFINE, INTEGRATE, HARD>;
  if (charge == LEAK_DECAY_INPUT) return recompute_block<IN, START, AFFINE, LEAK_DECAY_INPUT, HARD>;
  return recompute_block<IN, START, AFFINE, LEAK_ONLY, HARD>;
}

template <class IN, bool START>
RecomputeBlock<IN> choose_recompute(const IntegrateFire& a) {
  if (a.scale) return a.hard_reset ? choose_recompute<IN, START, true, true>(a.charge)
                                   : choose_recompute<IN, START, true, false>(a.charge);
  return a.hard_reset ? choose_recompute<IN, START, false, true>(a.charge)
                      : choose_recompute<IN, START, false, false>(a.charge);
}

template <class S>
void join_block(const float* __restrict s, const S* __restrict r, S* __restrict y, int64_t n, int32_t junction) {
  if (junction == ADD) for (int64_t i = 0; i < n; ++i) store(y + i, s[i] + load(r + i));
  else if (junction == AND) for (int64_t i = 0; i < n; ++i) store(y + i, s[i] * load(r + i));
  else if (junction == IAND) for (int64_t i = 0; i < n; ++i) store(y + i, load(r + i) * (1.0f - s[i]));
  else for (int64_t i = 0; i < n; ++i) store(y + i, s[i] * (1.0f - load(r + i)));
}

// Gradients through the junction: of the spikes into gs, of the residual into gr (not for add, where it is g itself).
template <class S>
void unjoin_block(const S* __restrict g, const S* __restrict r, const float* __restrict h, float* __restrict gs,
                  S* __restrict gr, int64_t n, int32_t junction, float threshold) {
  for (int64_t i = 0; i < n; ++i) {
    const float gi = load(g + i), ri = load(r + i), spike = h[i] >= threshold ? 1.0f : 0.0f;
    if (junction == AND) gs[i] = gi * ri, store(gr + i, gi * spike);
    else if (junction == IAND) gs[i] = -(gi * ri), store(gr + i, gi * (1.0f - spike));
    else gs[i] = gi * (1.0f - ri), store(gr + i, -(gi * spike));
  }
}

// Gradients at the v before (next) and at the current (gx; not written by neurons without a leak, where they are equal).
template <int CHARGE, bool HARD, bool DETACH, int SURROGATE>
void unfire_block(const float* __restrict gs, const float* __restrict h, const float* __restrict carry,
                  float* __restrict next_carry, float* __restrict gx, int64_t n, float threshold, float reset, float tau,
                  Width width, Next next) {
  by_lines<float, float>(n, next, [&](int64_t i) {
    const float sg = surrogate_gradient<SURROGATE>(h[i] - threshold, width);
    const float past = carry[i];
    float grad = gs[i];
    if (!DETACH) grad = HARD ? grad - past * h[i] + past * reset : grad - past * threshold;
    const float gh = grad * sg + (HARD && h[i] >= threshold ? 0.0f : past);
    if (CHARGE == INTEGRATE) {
      next_carry[i] = gh;
    } else {
      const float leak = gh / tau;
      gx[i] = CHARGE == LEAK_DECAY_INPUT ? leak : gh;
      next_carry[i] = gh - leak;
    }
  });
}

using UnfireBlock = void (*)(const float*, const float*, const float*, float*, float*, int64_t, float, float, float,
                             Width, Next);

template <int CHARGE, bool HARD, bool DETACH>
UnfireBlock choose_surrogate(int32_t surrogate) {
  if (surrogate == ATAN) return unfire_block<CHARGE, HARD, DETACH, ATAN>;
  if (surrogate == SIGMOID) return unfire_block<CHARGE, HARD, DETACH, SIGMOID>;
  if (surrogate == TRIANGLE) return unfire_block<CHARGE, HARD, DETACH, TRIANGLE>;
  return unfire_block<CHARGE, HARD, DETACH, RECTANGLE>;
}

template <int CHARGE>
UnfireBlock choose_reset(const IntegrateFire& a) {
  if (a.hard_reset) return a.detach_reset ? choose_surrogate<CHARGE, true, true>(a.surrogate)
                                          : choose_surrogate<CHARGE, true, false>(a.surrogate);
  return a.detach_reset ? choose_surrogate<CHARGE, false, true>(a.surrogate)
                        : choose_surrogate<CHARGE, false, false>(a.surrogate);
}

inline UnfireBlock choose_unfire(const IntegrateFire& a) {
  if (a.charge == INTEGRATE) return choose_reset<INTEGRATE>(a);
  if (a.charge == LEAK_DECAY_INPUT) return choose_reset<LEAK_DECAY_INPUT>(a);
  return choose_reset<LEAK_ONLY>(a);
}

// v at the start of a block, and the affine of each neuron's channel.
inline void open_block(const IntegrateFire& a, int64_t first, int64_t n, float* v, float* scale, float* shift) {
  for (int64_t i = 0; i < n; ++i) v[i] = a.v_init ? a.v_init[first + i] : (a.hard_reset ? a.v_reset : 0.0f);
  if (!a.scale) return;
  if (a.channel_inner == 1) {  // by stretches: neuron by neuron it took an eighth of the backward pass
    for (int64_t i = 0, channel = first % a.channels; i < n; channel = 0) {
      const int64_t rest = n - i, run = a.channels - channel < rest ? a.channels - channel : rest;
      __builtin_memcpy(scale + i, a.scale + channel, uint64_t(run) * sizeof(float));
      __builtin_memcpy(shift + i, a.shift + channel, uint64_t(run) * sizeof(float));
      i += run;
    }
    return;
  }
  int64_t channel = (first / a.channel_inner) % a.channels, left = a.channel_inner - first % a.channel_inner;
  for (int64_t i = 0; i < n; ++i) {
    scale[i] = a.scale[channel];
    shift[i] = a.shift[channel];
    if (--left == 0) left = a.channel_inner, channel = channel + 1 == a.channels ? 0 : channel + 1;
  }
}

// Asks for a row of the next block while this one is computed: rows are too short for the processor to see them coming.
template <class S>
inline void ask_for(const S* row, int64_t n) {
  const char* bytes = reinterpret_cast<const char*>(row);
  for (int64_t i = 0; i < n * int64_t(sizeof(S)); i += 64) __builtin_prefetch(bytes + i, 0, 2);
}
template <class S>
void forward_range(const IntegrateFire& a, int64_t begin, int64_t end) {
  const auto spikes = choose_fire<S, S>(a);
  const auto spikes_then_join = choose_fire<S, float>(a);
  float v[BLOCK], scale[BLOCK], shift[BLOCK], s[BLOCK];
  for (int64_t first = begin; first < end; first += BLOCK) {
    const int64_t rest = end - first, n = rest < BLOCK ? rest : BLOCK, ahead = rest - n < n ? rest - n : n;
    open_block(a, first, n, v, scale, shift);
    for (int64_t t = 0; t < a.steps; ++t) {
      const int64_t at = t * a.neurons + first;
      const S* x = static_cast<const S*>(a.x) + at;
      S* y = static_cast<S*>(a.out) + at;
      const Next next = {x + n, y + n};
      if (a.junction == NONE) {
        spikes(x, y, v, scale, shift, n, a.v_threshold, a.v_reset, a.tau, next);
      } else {
        const S* residual = static_cast<const S*>(a.residual) + at;
        ask_for(residual + n, ahead);
        spikes_then_join(x, s, v, scale, shift, n, a.v_threshold, a.v_reset, a.tau, next);
        join_block(s, residual, y, n, a.junction);
      }
    }
  }
}

constexpr int COUNTED = 3;  // rows of each step, in the order above

// Counts n <= CHUNK_TALLIED numbers of a step's rows, and writes gx where there is a scale (else gx is the current).
// It asks for the next block as well: this arithmetic is where most time is for it (without, counting took twice as long).
inline void count_rows(const float* gs, const float* __restrict current, const float* __restrict scale,
                       float* __restrict gx, const float* next_g, const float* next_x, int64_t n, bool exact, Sums* sums) {
  const auto ask = [&](int64_t i) {
    __builtin_prefetch(next_g + i, 0, 2);
    __builtin_prefetch(next_x + i, 0, 2);
    __builtin_prefetch(gx + n + i, 1, 2);
  };
  Chunk at_spikes, at_current, at_x;
  if (scale) {
    const int64_t whole = n / SIDES * SIDES;
    for (int64_t i = whole; i < n; ++i) gx[i] = current[i] * scale[i];
    for (int k = 0; k < NATIVES; ++k) {
      Lanes spikes, in_front, behind;
      for (int64_t i = 0; i < whole; i += SIDES) {
        if (k == 0) ask(i);
        native g, c, s;
        load_native(g, gs + i + k * WIDTH);
        load_native(c, current + i + k * WIDTH);
        load_native(s, scale + i + k * WIDTH);
        spikes.add(g);
        in_front.add(c);
        c *= s;
        store_native(gx + i + k * WIDTH, c);
        behind.add(c);
      }
      at_spikes.take(k, spikes, gs + whole, n - whole);
      at_current.take(k, in_front, current + whole, n - whole);
      at_x.take(k, behind, gx + whole, n - whole);
    }
    at_x.close(gx, n, exact, sums[2]);
  } else {
    at_spikes.count(gs, n, ask);
    at_current.count(current, n, [](int64_t) {});
  }
  at_spikes.close(gs, n, exact, sums[0]);
  at_current.close(current, n, exact, sums[1]);
}

// `sums` [T, COUNTED], where it COUNTS.
template <class S, bool COUNTS>
void backward_range(const IntegrateFire& a, int64_t begin, int64_t end, Sums* sums, bool exact) {
  const auto start = choose_recompute<S, true>(a), recompute = choose_recompute<S, false>(a);
  const auto unfire = choose_unfire(a);
  const Width width(a.surrogate, a.alpha);
  const bool joined = a.junction == AND || a.junction == IAND || a.junction == AND_NOT;
  const bool is_float = a.storage == FLOAT32, scaled = a.scale && a.through_affine, plain = is_float && !scaled;
  float v[BLOCK], scale[BLOCK], shift[BLOCK], spike_gradient[BLOCK], x_gradient[BLOCK], carries[2][BLOCK];
  int64_t size = (COUNTS ? COUNTED_TRACE : TRACE) / a.steps;  // neurons whose whole h fits in the trace
  size = size < 16 ? 16 : size > BLOCK ? BLOCK : size / 16 * 16;
  float* h = new float[size * a.steps];
  for (int64_t first = begin; first < end; first += size) {
    const int64_t rest = end - first, n = rest < size ? rest : size;
    open_block(a, first, n, v, scale, shift);
    for (int64_t t = 0; t < a.steps; ++t) {
      const int64_t at = t * a.neurons + first;
      const Next gradient = {static_cast<const S*>(a.grad_out) + at, nullptr};
      (t ? recompute : start)(static_cast<const S*>(a.x) + at, t ? h + (t - 1) * size : v, h + t * size, scale, shift,
                              n, a.v_threshold, a.v_reset, a.tau, gradient);
    }
    float* carry = carries[0];
    for (int64_t i = 0; i < n; ++i) carry[i] = 0.0f;
    for (int64_t t = a.steps - 1; t >= 0; --t) {
      const int64_t at = t * a.neurons + first;
      const S* g = static_cast<const S*>(a.grad_out) + at;
      S* gx = static_cast<S*>(a.grad_x) + at;
      const float* gs = spike_gradient;
      if (joined) unjoin_block(g, static_cast<const S*>(a.residual) + at, h + t * size, spike_gradient,
                               static_cast<S*>(a.grad_residual) + at, n, a.junction, a.v_threshold);
      else if (is_float) gs = reinterpret_cast<const float*>(g);
      else for (int64_t i = 0; i < n; ++i) spike_gradient[i] = load(g + i);
      // without a leak the gradient at the current is the carry: then a row of grad_x serves as the next step's
      float* current = plain ? reinterpret_cast<float*>(gx) : x_gradient;
      float* next = plain && a.charge == INTEGRATE ? current : carries[carry == carries[0]];
      const Next further = {static_cast<const S*>(a.x) + at + n, gx + n};
      unfire(gs, h + t * size, carry, next, current, n, a.v_threshold, a.v_reset, a.tau, width, further);
      if (a.charge == INTEGRATE) current = next;
      if (COUNTS) count_rows(gs, current, scaled ? scale : nullptr, reinterpret_cast<float*>(gx),
                             static_cast<const float*>(a.grad_out) + at + n, static_cast<const float*>(a.x) + at + n, n,
                             exact, sums + t * COUNTED);
      else if (scaled) for (int64_t i = 0; i < n; ++i) store(gx + i, current[i] * scale[i]);
      else if (!is_float) for (int64_t i = 0; i < n; ++i) store(gx + i, current[i]);
      carry = next;
    }
    if (a.grad_v_init) for (int64_t i = 0; i < n; ++i) a.grad_v_init[first + i] = carry[i];
  }
  delete[] h;
}

void integrate_fire_forward(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const IntegrateFire*>(arguments);
  a.storage == FLOAT32 ? forward_range<float>(a, begin, end) : forward_range<bfloat16>(a, begin, end);
}

// Samples begin to end, in float32, with what is counted of each.
void counted_backward(const IntegrateFire& a, int64_t begin, int64_t end) {
  static_assert(BLOCK <= CHUNK_TALLIED, "a row is one chunk");
  const int64_t size = a.neurons / a.samples;
  const bool scaled = a.scale && a.through_affine;
  Sums* sums = new Sums[a.steps * COUNTED];
  bool exact = false;  // as the sample before: its gradients are of the same size
  for (int64_t sample = begin; sample < end; ++sample)
    for (bool right = false; !right;) {
      for (int64_t i = 0; i < a.steps * COUNTED; ++i) sums[i] = {};
      backward_range<float, true>(a, sample * size, (sample + 1) * size, sums, exact);
      bool holds = true;
      for (int64_t t = 0; t < a.steps; ++t)
        for (int side = 0; side < COUNTED; ++side)  // without an affine x is the current
          holds &= finish(sums[t * COUNTED + (side == 2 && !scaled ? 1 : side)], size,
                          a.tally + ((side * a.steps + t) * a.samples + sample) * TALLIED);
      right = holds || exact;
      exact = !holds;
    }
  delete[] sums;
}

void integrate_fire_backward(int64_t begin, int64_t end, void* arguments) {
  const auto& a = *static_cast<const IntegrateFire*>(arguments);
  if (a.samples) counted_backward(a, begin, end);
  else a.storage == FLOAT32 ? backward_range<float, false>(a, begin, end, nullptr, false)
                            : backward_range<bfloat16, false>(a, begin, end, nullptr, false);
}
