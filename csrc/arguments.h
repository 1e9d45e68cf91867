// What Python hands to the kernels of the ops, on a CPU and on a GPU: plain structs of pointers and numbers, mirrored
// field by field in fastsnn/ops/library.py. No torch headers: one binary serves every torch.
#pragma once
#ifdef __CUDACC_RTC__  // has no standard headers
using int32_t = int;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using int64_t = long long;
#else
#include <cstdint>
#endif

namespace fastsnn {

enum Storage : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };  // FLOAT16: on a GPU only
enum Charge : int32_t { INTEGRATE = 0, LEAK_DECAY_INPUT = 1, LEAK_ONLY = 2 };
enum Junction : int32_t { NONE = 0, ADD = 1, AND = 2, IAND = 3, AND_NOT = 4 };
enum Surrogate : int32_t { ATAN = 0, SIGMOID = 1, TRIANGLE = 2, RECTANGLE = 3 };

// Tensors are [T, neurons], dense; neuron i belongs to channel (i / channel_inner) % channels.
struct IntegrateFire {
  const void* x;          // input current
  const float* v_init;    // [neurons] or null: start at v_reset (0 for soft reset)
  const float* scale;     // [channels] or null
  const float* shift;     // [channels] or null
  const void* residual;   // like x, or null without a junction
  void* out;              // forward: spikes or junction output; like x
  const void* grad_out;   // backward: gradient at `out`
  void* grad_x;           // backward: gradient at x, or at scale*x+shift where !through_affine
  float* grad_v_init;     // [neurons] or null
  void* grad_residual;    // like x, or null
  float* notes;           // on a GPU: [spans before the last, neurons], v where each begins; null where T is one span
  double* tally;          // on a GPU: [blocks, 4], of grad_x: nonzero numbers, L1, squared L2, Linf; null: not counted
                          // on a CPU: [3, T, samples, 4], see csrc/cpu/integrate_fire.inl
  int64_t steps, neurons, channels, channel_inner;
  int64_t samples;        // on a CPU: neurons are so many samples, counted one by one into `tally`; 0: not counted
  double alpha;           // width of the surrogate, in double as torch keeps a Python scalar
  float v_threshold, v_reset, tau;
  int32_t storage, charge, junction, surrogate, hard_reset, detach_reset, through_affine;
};

struct PhaseEncode {
  const void* images;  // [pixels] uint8, or float in [0, 1]
  void* out;           // [T, pixels] float32
  int64_t steps, pixels;
  int32_t period, is_float, weighted;
};

// One attack iteration on dense tensors; sample of element i is (i / sample_inner) % samples.
struct AttackStep {
  const float* x;
  const float* origin;
  const float* gradient;
  const float* eps;    // [samples]
  const float* alpha;  // [samples]
  float* out;
  int64_t elements, samples, sample_inner;
  int32_t exact;  // round inwards, so that |out - origin| <= eps holds in exact arithmetic
};

}  // namespace fastsnn
