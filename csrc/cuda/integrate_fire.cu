// integrate_fire on a GPU, in CUDA C++. Specification: fastsnn/ops/integrate_fire/reference.py.
//
//     h[t] = v[t-1] + scale[c] * x[t] + shift[c]     charge, with batch norm's affine in front
//     s[t] = h[t] >= v_threshold                     fire
//     v[t] = v_reset where s[t] else h[t]            reset
//     y[t] = s[t] (+) residual[t]                    junction: add, and, iand, and_not
//
// A thread owns the neurons of one pack (4 in float32, 8 in half precision; 1 in narrow kernels) and walks T steps with
// v in registers, SPAN steps at a time, whose packs are loaded ahead. The backward pass walks forward once to recompute
// h (bit for bit), then back; where T is more than one span, v is noted where each begins and h recomputed from there.
// Compiled with --fmad=false: spikes equal the reference's. Compiled once for every storage type, span, surrogate and
// for neurons with and without a leak (UNIT_...); what else a neuron may be is decided alike in all threads.
#include "pack.cuh"

namespace fastsnn {

// Steps first to first + SPAN of a tensor; none past the last.
template <class S, int WIDTH, int SPAN>
DEVICE void load_span(Pack (&span)[SPAN], const void* tensor, const IntegrateFire& a, int64_t at, int64_t first) {
#pragma unroll
  for (int k = 0; k < SPAN; ++k) {
    span[k] = Pack{};
    if (first + k < a.steps) span[k] = load<S, WIDTH>(tensor, (first + k) * a.neurons + at);
  }
}

template <int WIDTH>
struct Neurons {  // of a thread
  float v[WIDTH], scale[WIDTH], shift[WIDTH];

  DEVICE Neurons(const IntegrateFire& a, int64_t at) {
    int64_t channel = 0, left = 1;
    if (a.scale) {
      const int64_t run = at / a.channel_inner;
      channel = run % a.channels;
      left = a.channel_inner - (at - run * a.channel_inner);
    }
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) {
      v[i] = a.v_init ? a.v_init[at + i] : a.hard_reset ? a.v_reset : 0.0f;
      scale[i] = a.scale ? a.scale[channel] : 1.0f;
      shift[i] = a.scale ? a.shift[channel] : 0.0f;
      if (--left == 0) left = a.channel_inner, channel = channel + 1 == a.channels ? 0 : channel + 1;
    }
  }

  // Returns h of neuron i, and leaves the next v.
  DEVICE float charge(const IntegrateFire& a, int i, float x) {
    const float rest = a.hard_reset ? a.v_reset : 0.0f;
    const float current = a.scale ? x * scale[i] + shift[i] : x;
    float h = v[i] + current;
    if (UNIT_LEAKS) {
      const float above = v[i] - rest, leak = (a.charge == LEAK_DECAY_INPUT ? current - above : above) / a.tau;
      h = a.charge == LEAK_DECAY_INPUT ? v[i] + leak : v[i] - leak + current;
    }
    const float spike = h >= a.v_threshold ? 1.0f : 0.0f;
    v[i] = !a.hard_reset ? h - spike * a.v_threshold : h >= a.v_threshold ? a.v_reset : h;
    return h;
  }
};

DEVICE float join(int32_t junction, float s, float r) {
  if (junction == ADD) return s + r;
  if (junction == AND) return s * r;
  return junction == IAND ? r * (1.0f - s) : s * (1.0f - r);
}

// The surrogate of ds/dh at u = h - v_threshold.
template <int KIND>
struct Slope {
  float width, height;  // rounded once, as torch rounds a Python number

  DEVICE explicit Slope(double alpha) : width(float(alpha)), height(float(alpha)) {
    if (KIND == ATAN) width = float(3.14159265358979323846 / 2 * alpha), height = float(alpha / 2);
    if (KIND == TRIANGLE) width = float(alpha * alpha);
    if (KIND == RECTANGLE) width = float(0.5 / alpha);
  }

  DEVICE float gradient(float u) const {
    const float z = u * width;
    if (KIND == ATAN) return 1.0f / (1.0f + z * z) * height;
    if (KIND == SIGMOID) {
      const float s = 1.0f / (1.0f + expf(-z));
      return (1.0f - s) * s * height;
    }
    if (KIND == RECTANGLE) return fabsf(u) < width ? height : 0.0f;
    const float d = height - width * fabsf(u);
    return d < 0.0f ? 0.0f : d;
  }
};

template <class S, int WIDTH, int SPAN>
DEVICE void forward(const IntegrateFire& a) {
  const int64_t at = mine<WIDTH>();
  if (at >= a.neurons) return;
  Neurons<WIDTH> neurons(a, at);
  for (int64_t first = 0; first < a.steps; first += SPAN) {
    Pack x[SPAN], residual[SPAN];
    load_span<S, WIDTH>(x, a.x, a, at, first);
    if (a.junction != NONE) load_span<S, WIDTH>(residual, a.residual, a, at, first);
#pragma unroll
    for (int k = 0; k < SPAN; ++k) {
      if (first + k >= a.steps) break;
      Pack out = {};
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        const float spike = neurons.charge(a, i, number<S>(x[k], i)) >= a.v_threshold ? 1.0f : 0.0f;
        put<S>(out, i, a.junction == NONE ? spike : join(a.junction, spike, number<S>(residual[k], i)));
      }
      store<S, WIDTH>(a.out, (first + k) * a.neurons + at, out);
    }
  }
}

struct Tally {  // of what a thread wrote to grad_x
  int nonzero = 0;
  float l1 = 0.0f, squares = 0.0f, largest = 0.0f;

  template <class S, int WIDTH>
  DEVICE void add(const Pack& pack) {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) {
      const float g = fabsf(number<S>(pack, i));
      nonzero += g != 0.0f;
      l1 += g;
      squares += g * g;
      largest = g > largest || g != g ? g : largest;
    }
  }

  // The block's sums, in an order of their own: within warps, then over warps.
  DEVICE void write(double* tally) const {
    __shared__ double of_warp[THREADS / 32][4];
    double sums[4] = {double(nonzero), double(l1), double(squares), double(largest)};
    for (int i = 0; i < 4; ++i)
      for (int offset = 16; offset > 0; offset /= 2) {
        const double other = __shfl_down_sync(0xFFFFFFFFu, sums[i], offset);
        sums[i] = i < 3 ? sums[i] + other : other > sums[i] || other != other ? other : sums[i];
      }
    if (threadIdx.x % 32 == 0)
      for (int i = 0; i < 4; ++i) of_warp[threadIdx.x / 32][i] = sums[i];
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 0; i < 4; ++i) {
      double sum = of_warp[0][i];
      for (int warp = 1; warp < THREADS / 32; ++warp) {
        const double other = of_warp[warp][i];
        sum = i < 3 ? sum + other : other > sum || other != other ? other : sum;
      }
      tally[int64_t(blockIdx.x) * 4 + i] = sum;
    }
  }
};

// The gradients of one step of a thread's neurons: at x into grad_x, at the residual into grad_r, at v into carry.
template <class S, int WIDTH, int SURROGATE>
DEVICE void unfire(const IntegrateFire& a, const Neurons<WIDTH>& neurons, Slope<SURROGATE> slope,
                   const float (&h)[WIDTH], const Pack& grad_out, const Pack& residual, float (&carry)[WIDTH],
                   Pack& grad_x, Pack& grad_r) {
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) {
    const bool fired = h[i] >= a.v_threshold;
    const float g = number<S>(grad_out, i), past = carry[i];
    float grad = g;
    if (a.junction > ADD) {
      const float s = fired ? 1.0f : 0.0f, r = number<S>(residual, i);
      grad = a.junction == AND ? g * r : a.junction == IAND ? -(g * r) : g * (1.0f - r);
      put<S>(grad_r, i, a.junction == AND ? g * s : a.junction == IAND ? g * (1.0f - s) : -(g * s));
    }
    if (!a.detach_reset) grad = a.hard_reset ? grad - past * h[i] + past * a.v_reset : grad - past * a.v_threshold;
    const float gh = grad * slope.gradient(h[i] - a.v_threshold) + (a.hard_reset && fired ? 0.0f : past);
    const float leak = UNIT_LEAKS ? gh / a.tau : 0.0f;
    const float current = a.charge == LEAK_DECAY_INPUT ? leak : gh;
    carry[i] = UNIT_LEAKS ? gh - leak : gh;
    put<S>(grad_x, i, a.scale && a.through_affine ? current * neurons.scale[i] : current);
  }
}

template <class S, int WIDTH, int SPAN, int SURROGATE>
DEVICE void backward(const IntegrateFire& a) {
  const int64_t at = mine<WIDTH>();
  Tally tally;
  if (at < a.neurons) {
    Neurons<WIDTH> neurons(a, at);
    const Slope<SURROGATE> slope(a.alpha);
    const int64_t spans = (a.steps + SPAN - 1) / SPAN;
    constexpr int FEW = 4;  // gradients loaded ahead: all of a span would take more registers than there are
    Pack x[SPAN], grad_out[FEW];
    for (int64_t span = 0; span + 1 < spans; ++span) {
      load_span<S, WIDTH>(x, a.x, a, at, span * SPAN);
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) a.notes[span * a.neurons + at + i] = neurons.v[i];
#pragma unroll
      for (int k = 0; k < SPAN; ++k)
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) neurons.charge(a, i, number<S>(x[k], i));
    }
    float carry[WIDTH] = {};
    for (int64_t span = spans - 1; span >= 0; --span) {
      const int64_t first = span * SPAN;
      if (span + 1 < spans)  // the last span's v is still at hand
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) neurons.v[i] = a.notes[span * a.neurons + at + i];
      float h[SPAN][WIDTH];
      load_span<S, WIDTH>(x, a.x, a, at, first);
#pragma unroll
      for (int k = 0; k < SPAN; ++k)
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) h[k][i] = neurons.charge(a, i, number<S>(x[k], i));
#pragma unroll
      for (int k = SPAN - 1; k >= 0; --k) {
        if (k == SPAN - 1 || k % FEW == FEW - 1) load_span<S, WIDTH>(grad_out, a.grad_out, a, at, first + k / FEW * FEW);
        if (first + k >= a.steps) continue;
        const int64_t row = (first + k) * a.neurons + at;
        Pack residual = {}, grad_x = {}, grad_r = {};
        if (a.junction > ADD) residual = load<S, WIDTH>(a.residual, row);
        unfire<S>(a, neurons, slope, h[k], grad_out[k % FEW], residual, carry, grad_x, grad_r);
        store<S, WIDTH>(a.grad_x, row, grad_x);
        if (a.junction > ADD) store<S, WIDTH>(a.grad_residual, row, grad_r);
        if (a.tally) tally.add<S, WIDTH>(grad_x);
      }
    }
    if (a.grad_v_init)
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) a.grad_v_init[at + i] = carry[i];
  }
  if (a.tally) tally.write(a.tally);
}

extern "C" __global__ void __launch_bounds__(THREADS) forward_wide(const IntegrateFire a) {
  forward<UNIT_STORAGE, WIDE<UNIT_STORAGE>, UNIT_SPAN>(a);
}

extern "C" __global__ void __launch_bounds__(THREADS) forward_narrow(const IntegrateFire a) {
  forward<UNIT_STORAGE, 1, UNIT_SPAN>(a);
}

extern "C" __global__ void __launch_bounds__(THREADS) backward_wide(const IntegrateFire a) {
  backward<UNIT_STORAGE, WIDE<UNIT_STORAGE>, UNIT_SPAN, UNIT_SURROGATE>(a);
}

extern "C" __global__ void __launch_bounds__(THREADS) backward_narrow(const IntegrateFire a) {
  backward<UNIT_STORAGE, 1, UNIT_SPAN, UNIT_SURROGATE>(a);
}

}  // namespace fastsnn
