// Every kernel once, for the instruction set of the namespace that includes this file.
#include "tally.inl"
#include "integrate_fire.inl"
#include "phase_encode.inl"
#include "attack_step.inl"
#include "multiply.inl"
#include "matrix.inl"
#include "convolution.inl"
#include "winograd.inl"
#include "channels.inl"
#include "fingerprint.inl"
#include "pool.inl"
#include "momentum_step.inl"

constexpr Kernels KERNELS = {integrate_fire_forward, integrate_fire_backward, phase_encode, attack_step, winograd,
                             convolution_forward, convolution_backward, matrix, channel_sums, channel_affine,
                             winograd_filters, winograd_planes, fingerprint, pool_forward, pool_backward, tally,
                             tally_added, momentum_step,
#if FASTSNN_BF16
                             matrix_of<Bf16>, winograd_of<Bf16>, convolution_backward_of<Bf16>, matrix_of<Int16>,
                             winograd_of<Int16Tiles>, convolution_forward_of<Int16>
#else
                             nullptr, nullptr, nullptr, nullptr, nullptr, nullptr
#endif
};
