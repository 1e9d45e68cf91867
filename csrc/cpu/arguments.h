// What Python hands to the kernels: plain structs of pointers and numbers, mirrored field by field
// in fastsnn/ops/library.py. No torch headers: one binary serves every torch.
#pragma once
#include <cstdint>

namespace fastsnn {

enum Storage : int32_t { FLOAT32 = 0, BFLOAT16 = 1 };
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
  int64_t steps, neurons, channels, channel_inner;
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

// Panels of bfloat16 (of the kernels that say so) hold pairs of inputs: [..., inputs / 2, 32, 2].

// A 3x3 convolution with padding 1 of frames [N, height, width, inputs] -> [N, height, width, outputs].
struct Winograd {
  const float* x;
  const void* weight;  // [products^2, outputs / 32, inputs, 32]: panels, the last one filled up with zeros
  float* out;
  int64_t rows, height, width, inputs, outputs, tiles_y, tiles_x;  // rows: tiles of all frames
  int32_t tile;                                                    // 4: tiles of 4x4 outputs; 2: a whole 2x2 map
};

// Kernels [outputs, inputs, 3, 3], anywhere in memory, to panels.
struct WinogradFilters {
  const float* weight;  // the first tap of the first kernel
  float* out;           // as Winograd's weight
  int64_t outputs, inputs, output_stride, input_stride, tap_stride;  // in floats; taps go backwards in turned kernels
  int32_t tile;
};

// The planes [products^2, rows, channels] of frames: of a convolution's input, or of the gradient at its output.
struct WinogradPlanes {
  const float* frames;  // [N, height, width, channels]
  float* out;
  int64_t rows, height, width, channels, tiles_y, tiles_x;
  int32_t tile, is_gradient;
};

// A square convolution of frames [N, height, width, inputs] -> [N, out_height, out_width, outputs], or its input gradient.
struct Convolution {
  const float* x;       // frames; backward: gradients at the output
  const float* weight;  // forward: [outputs / 32, kernel, kernel * inputs, 32]; backward: [window / 32, outputs, 32]
  float* out;
  int64_t frames, height, width, inputs, outputs, out_height, out_width, kernel, stride, padding;
};

constexpr int64_t CHUNK = 84;  // rows of a matrix that a task takes: a multiple of all the kernels' blocks

// Dense rows [rows, inputs] -> [rows, outputs].
struct Matrix {
  const float* x;
  const void* weight;  // [outputs / 32, inputs, 32]: panels, the last one filled up with zeros
  float* out;
  int64_t rows, inputs, outputs;
};

// Batch norm over rows [rows, channels]: its sums, or its gradient.
struct Channels {
  const float* g;     // gradient at the norm's output; null in the sums of the forward pass
  const float* x;     // the norm's input
  const float* mean;  // [channels], subtracted from x in the second sum
  const float* factor;    // [channels], of g
  const float* slope;     // [channels], of x
  const float* constant;  // [channels]
  float* out;         // like x
  double* partial;    // [chunks, 2, channels]: the sums of each chunk
  int64_t rows, channels, chunk_rows;
};

}  // namespace fastsnn
