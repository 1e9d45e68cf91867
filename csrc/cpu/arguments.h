// What Python hands to the CPU's products, mirrored field by field in fastsnn/ops/library.py.
#pragma once
#include "../arguments.h"

namespace fastsnn {

// Panels of bfloat16 and int16 (of the kernels that say so) hold pairs of inputs: [..., inputs / 2, 32, 2]. Behind each
// panel of int16 stand 32 floats, the units of its columns.
//
// `exact` of kernels with int16: the same weights as float32 (else null), for rows with an input that is no small integer.

// A 3x3 convolution with padding 1 of frames [N, height, width, inputs] -> [N, height, width, outputs].
struct Winograd {
  const float* x;
  const void* weight;  // [products^2, outputs / 32, inputs, 32]: panels, the last one filled up with zeros
  float* out;
  const float* exact;
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
  const void* weight;   // forward: [outputs / 32, window, 32]; backward: [window / 32, outputs, 32]
  float* out;
  const float* exact;
  int64_t frames, height, width, inputs, outputs, out_height, out_width, kernel, stride, padding;
  int32_t is_finite;  // no weight is infinite or NaN, so that inputs of 0 need no product
};

constexpr int64_t CHUNK = 84;  // rows of a matrix that a task takes: a multiple of all the kernels' blocks

// Dense rows [rows, inputs] -> [rows, outputs].
struct Matrix {
  const float* x;
  const void* weight;  // [outputs / 32, inputs, 32]: panels, the last one filled up with zeros
  float* out;
  const float* exact;
  int64_t rows, inputs, outputs;
  int32_t is_finite;  // as in Convolution
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

// A step of Auto-PGD on iterates of which `sample_inner` neighbours belong to one sample.
struct MomentumStep {
  const float* adv;
  const float* before;
  const float* gradient;
  const float* origin;
  const float* eps;   // [samples]
  const float* size;  // [samples]
  float* out;
  int64_t elements, samples, sample_inner;
  float weight;  // of this step; 1 - weight of the one before
};

// Hashes of tensors' bytes, chunk by chunk.
struct Fingerprint {
  const int64_t* table;  // of each tensor, and of their end: address, bytes, the first of its chunks
  uint64_t* out;         // a hash for each chunk
  int64_t tensors, chunk_bytes;
};

// A max or average pool with a square window of frames [frames, height, width, channels] -> [frames, out_height, out_width,
// channels]. Averages count the padding.
struct Pool {
  const float* x;  // frames; backward: gradients at the output
  float* out;
  uint8_t* taps;   // of a max pool, like its output: row * kernel + column of the window's place that was taken
  int64_t frames, height, width, channels, out_height, out_width, kernel, stride, padding;
  int32_t is_max;
};

// Sums of what rows [rows, numbers] hold: [rows, 4].
struct Tally {
  const float* x;
  double* out;
  int64_t rows, numbers;
};

constexpr int64_t MOST_ADDED = 128;

// Adds such sums [steps, samples, 4] up over samples, with L2 not squared, at each step and over all. Those of one place
// belong to the same samples; what they come to is added to several rows.
struct TallyAdded {
  const double* sums[MOST_ADDED];  // those of a place side by side
  double* out;           // [rows, 4, all_steps + 1]
  int64_t* times;        // becomes one more; may be null
  const int64_t* table;  // of each place, and of their end: the first of its sums, the first of its rows below; then rows
  int64_t places, steps, samples;
  int64_t all_steps;     // where `steps` are fewer, they are no time steps: only the last number is added to
};

}  // namespace fastsnn
