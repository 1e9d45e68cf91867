// The CPU kernels as a plain C library: four copies of each, one per instruction set, behind plain
// functions. Python loads it with ctypes and lends it torch's own thread pool.
//
//     g++ -O3 -std=c++17 -ffp-contract=off -fno-math-errno -fno-trapping-math -shared -fPIC kernels.cpp
#include <cstdint>
#include <new>
#include <type_traits>

#include "arguments.h"
#include "isa.h"
#if FASTSNN_X86
#include <immintrin.h>
#endif

namespace fastsnn {

using Range = void (*)(int64_t begin, int64_t end, void* arguments);
struct Kernels {
  Range integrate_fire_forward, integrate_fire_backward, phase_encode, attack_step, winograd, convolution_forward,
      convolution_backward, matrix, channel_sums, channel_affine, winograd_filters, winograd_planes, fingerprint,
      pool_forward, pool_backward, tally, tally_added, momentum_step;
  Range matrix_bf16, winograd_bf16, convolution_backward_bf16;  // null where the processor has no products of bfloat16
  Range matrix_int16, winograd_int16, convolution_forward_int16;  // and of int16
};

namespace baseline {
constexpr int ROWS = 2, WIDE = 1, NATIVE = 16;
#define FASTSNN_AVX512 0
#define FASTSNN_BF16 0
#include "all.inl"
#undef FASTSNN_BF16
#undef FASTSNN_AVX512
}  // namespace baseline

#if FASTSNN_X86
FASTSNN_TARGET_AVX2
namespace avx2 {
constexpr int ROWS = 6, WIDE = 2, NATIVE = 32;
#define FASTSNN_AVX512 0
#define FASTSNN_BF16 0
#include "all.inl"
#undef FASTSNN_BF16
#undef FASTSNN_AVX512
}  // namespace avx2
FASTSNN_TARGET_END

FASTSNN_TARGET_AVX512
namespace avx512 {
constexpr int ROWS = 14, WIDE = 4, NATIVE = 64;
#define FASTSNN_AVX512 1
#define FASTSNN_BF16 0
#include "all.inl"
#undef FASTSNN_BF16
#undef FASTSNN_AVX512
}  // namespace avx512
FASTSNN_TARGET_END

FASTSNN_TARGET_AVX512_BF16
namespace avx512_bf16 {
constexpr int ROWS = 14, WIDE = 4, NATIVE = 64;
#define FASTSNN_AVX512 1
#define FASTSNN_BF16 1
#include "all.inl"
#undef FASTSNN_BF16
#undef FASTSNN_AVX512
}  // namespace avx512_bf16
FASTSNN_TARGET_END
#endif

struct Isa { const char* name; const Kernels* kernels; };

// The best first: the instruction sets this processor has.
int available(Isa* list) {
  int n = 0;
#if FASTSNN_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"))
      list[n++] = {"avx512_bf16", &avx512_bf16::KERNELS};
    list[n++] = {"avx512", &avx512::KERNELS};
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[n++] = {"avx2", &avx2::KERNELS};
#endif
  list[n++] = {"baseline", &baseline::KERNELS};
  return n;
}

Isa chosen = [] { Isa list[4]; available(list); return list[0]; }();

// torch_parallel_for of libtorch (stable C interface since torch 2.10), or null: run in this thread.
using ParallelFor = int32_t (*)(int64_t, int64_t, int64_t, Range, void*);
ParallelFor parallel_for = nullptr;

int32_t run(Range range, int64_t count, int64_t grain, void* arguments) {
  if (!range) return 1;  // the chosen instruction set has no such kernel
  if (count <= 0) return 0;
  if (parallel_for && count > grain) return parallel_for(0, count, grain, range, arguments);
  range(0, count, arguments);
  return 0;
}

int64_t chunks(int64_t rows) { return (rows + CHUNK - 1) / CHUNK; }

constexpr int64_t GRAIN = 32768;  // elements below which a second thread costs more than it brings

}  // namespace fastsnn

#define FASTSNN_API __attribute__((visibility("default")))

extern "C" {

FASTSNN_API void fastsnn_use_parallel_for(void* function) {
  fastsnn::parallel_for = reinterpret_cast<fastsnn::ParallelFor>(function);
}

// Bytes of the argument structs: what Python compares with its own, so that a stale library is not called.
FASTSNN_API int64_t fastsnn_argument_bytes(int32_t i) {
  const int64_t bytes[] = {sizeof(fastsnn::IntegrateFire), sizeof(fastsnn::PhaseEncode), sizeof(fastsnn::AttackStep),
                           sizeof(fastsnn::Winograd), sizeof(fastsnn::Convolution), sizeof(fastsnn::Matrix),
                           sizeof(fastsnn::Channels), sizeof(fastsnn::WinogradFilters),
                           sizeof(fastsnn::WinogradPlanes), sizeof(fastsnn::Fingerprint), sizeof(fastsnn::Pool),
                           sizeof(fastsnn::Tally), sizeof(fastsnn::TallyAdded), sizeof(fastsnn::MomentumStep)};
  return i >= 0 && i < 14 ? bytes[i] : 0;
}

// Name of the i-th instruction set this processor can run, best first; null past the end.
FASTSNN_API const char* fastsnn_isa(int32_t i) {
  static fastsnn::Isa list[4];
  const int n = fastsnn::available(list);
  return i >= 0 && i < n ? list[i].name : nullptr;
}

// Use the i-th instruction set from now on; returns 0, or 1 if there is none such.
FASTSNN_API int32_t fastsnn_choose_isa(int32_t i) {
  fastsnn::Isa list[4];
  if (i < 0 || i >= fastsnn::available(list)) return 1;
  fastsnn::chosen = list[i];
  return 0;
}

FASTSNN_API int32_t fastsnn_integrate_fire_forward(fastsnn::IntegrateFire* a) {
  return fastsnn::run(fastsnn::chosen.kernels->integrate_fire_forward, a->neurons, fastsnn::GRAIN / a->steps + 1, a);
}

FASTSNN_API int32_t fastsnn_integrate_fire_backward(fastsnn::IntegrateFire* a) {
  if (a->samples) {  // a sample's sums are added up by one thread
    const int64_t numbers = a->neurons / a->samples * a->steps;
    return fastsnn::run(fastsnn::chosen.kernels->integrate_fire_backward, a->samples, fastsnn::GRAIN / numbers + 1, a);
  }
  return fastsnn::run(fastsnn::chosen.kernels->integrate_fire_backward, a->neurons, fastsnn::GRAIN / a->steps + 1, a);
}

FASTSNN_API int32_t fastsnn_phase_encode(fastsnn::PhaseEncode* a) {
  return fastsnn::run(fastsnn::chosen.kernels->phase_encode, a->pixels, fastsnn::GRAIN / a->steps + 1, a);
}

FASTSNN_API int32_t fastsnn_attack_step(fastsnn::AttackStep* a) {
  return fastsnn::run(fastsnn::chosen.kernels->attack_step, a->elements, fastsnn::GRAIN, a);
}

FASTSNN_API int32_t fastsnn_winograd(fastsnn::Winograd* a) {
  return fastsnn::run(fastsnn::chosen.kernels->winograd, a->rows, 28, a);
}

// Tells whether the chosen instruction set has the kernels below, whose weights are bfloat16 or int16.
FASTSNN_API int32_t fastsnn_has_bf16() { return fastsnn::chosen.kernels->matrix_bf16 != nullptr; }

FASTSNN_API int32_t fastsnn_winograd_bf16(fastsnn::Winograd* a) {
  return fastsnn::run(fastsnn::chosen.kernels->winograd_bf16, a->rows, 28, a);
}

FASTSNN_API int32_t fastsnn_winograd_int16(fastsnn::Winograd* a) {
  return fastsnn::run(fastsnn::chosen.kernels->winograd_int16, a->rows, 28, a);
}

FASTSNN_API int32_t fastsnn_matrix_bf16(fastsnn::Matrix* a) {
  return fastsnn::run(fastsnn::chosen.kernels->matrix_bf16, fastsnn::chunks(a->rows), 1, a);
}

FASTSNN_API int32_t fastsnn_matrix_int16(fastsnn::Matrix* a) {
  return fastsnn::run(fastsnn::chosen.kernels->matrix_int16, fastsnn::chunks(a->rows), 1, a);
}

FASTSNN_API int32_t fastsnn_convolution_backward_bf16(fastsnn::Convolution* a) {
  return fastsnn::run(fastsnn::chosen.kernels->convolution_backward_bf16, a->frames, 2, a);
}

FASTSNN_API int32_t fastsnn_convolution_forward_int16(fastsnn::Convolution* a) {
  const int64_t pixels = a->frames * a->out_height * a->out_width;
  return fastsnn::run(fastsnn::chosen.kernels->convolution_forward_int16, fastsnn::chunks(pixels), 1, a);
}

FASTSNN_API int32_t fastsnn_winograd_filters(fastsnn::WinogradFilters* a) {
  return fastsnn::run(fastsnn::chosen.kernels->winograd_filters, (a->outputs + 31) / 32 * a->inputs, 16, a);
}

FASTSNN_API int32_t fastsnn_winograd_planes(fastsnn::WinogradPlanes* a) {
  return fastsnn::run(fastsnn::chosen.kernels->winograd_planes, a->rows, 28, a);
}

FASTSNN_API int32_t fastsnn_convolution_forward(fastsnn::Convolution* a) {
  const int64_t pixels = a->frames * a->out_height * a->out_width;
  return fastsnn::run(fastsnn::chosen.kernels->convolution_forward, fastsnn::chunks(pixels), 1, a);
}

FASTSNN_API int32_t fastsnn_convolution_backward(fastsnn::Convolution* a) {
  return fastsnn::run(fastsnn::chosen.kernels->convolution_backward, a->frames, 2, a);
}

FASTSNN_API int32_t fastsnn_matrix(fastsnn::Matrix* a) {
  return fastsnn::run(fastsnn::chosen.kernels->matrix, fastsnn::chunks(a->rows), 1, a);
}

FASTSNN_API int32_t fastsnn_channel_sums(fastsnn::Channels* a) {
  const int64_t chunks = (a->rows + a->chunk_rows - 1) / a->chunk_rows, width = 2 * a->channels;
  const int32_t status = fastsnn::run(fastsnn::chosen.kernels->channel_sums, chunks, 1, a);
  for (int64_t chunk = 1; chunk < chunks; ++chunk)  // all into the first
    for (int64_t c = 0; c < width; ++c) a->partial[c] += a->partial[chunk * width + c];
  return status;
}

FASTSNN_API int32_t fastsnn_channel_affine(fastsnn::Channels* a) {
  return fastsnn::run(fastsnn::chosen.kernels->channel_affine, a->rows, fastsnn::GRAIN / a->channels + 1, a);
}

FASTSNN_API int32_t fastsnn_fingerprint(fastsnn::Fingerprint* a) {
  return fastsnn::run(fastsnn::chosen.kernels->fingerprint, a->table[3 * a->tensors + 2], 1, a);
}

FASTSNN_API int32_t fastsnn_pool_forward(fastsnn::Pool* a) {
  const int64_t grain = fastsnn::GRAIN / (a->width * a->channels) + 1;
  return fastsnn::run(fastsnn::chosen.kernels->pool_forward, a->frames * a->out_height, grain, a);
}

FASTSNN_API int32_t fastsnn_pool_backward(fastsnn::Pool* a) {
  const int64_t grain = fastsnn::GRAIN / (a->width * a->channels) + 1;
  return fastsnn::run(fastsnn::chosen.kernels->pool_backward, a->frames * a->height, grain, a);
}

FASTSNN_API int32_t fastsnn_tally(fastsnn::Tally* a) {
  return fastsnn::run(fastsnn::chosen.kernels->tally, a->rows, fastsnn::GRAIN / a->numbers + 1, a);
}

FASTSNN_API int32_t fastsnn_momentum_step(fastsnn::MomentumStep* a) {
  return fastsnn::run(fastsnn::chosen.kernels->momentum_step, a->elements, fastsnn::GRAIN, a);
}

FASTSNN_API int32_t fastsnn_tally_added(fastsnn::TallyAdded* a) {
  if (a->times) ++*a->times;
  const int64_t parts = a->table[2 * a->places], numbers = parts * a->steps * a->samples * 4 / (a->places + 1);
  return fastsnn::run(fastsnn::chosen.kernels->tally_added, a->places, fastsnn::GRAIN / (numbers + 1) + 1, a);
}
}
