// A host that plays the device for csrc/cuda: what the sources take from the CUDA compiler, for a C++20 compiler.
// The threads of a block run one after another; where they meet (__syncthreads, shuffles), side by side as real ones.
#include <barrier>
#include <bit>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#define DEVICE inline
#define __global__
#define __shared__ static
#define __launch_bounds__(threads)

struct Index { unsigned x; };
inline thread_local Index threadIdx, blockIdx;
inline std::barrier<>* meeting = nullptr;

inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
inline float from_float16(unsigned short bits) { return float(std::bit_cast<_Float16>(bits)); }
inline unsigned short to_float16(float value) { return std::bit_cast<unsigned short>(_Float16(value)); }
struct alignas(16) Words { uint32_t words[4]; };
inline void store_16(void* p, const uint32_t (&w)[4]) { *static_cast<Words*>(p) = {w[0], w[1], w[2], w[3]}; }

inline void __syncthreads() { meeting->arrive_and_wait(); }
inline double __shfl_down_sync(unsigned, double value, int offset) {
  static double of_thread[1024];
  of_thread[threadIdx.x] = value;
  __syncthreads();
  const double other = threadIdx.x % 32 + offset < 32 ? of_thread[threadIdx.x + offset] : value;
  __syncthreads();
  return other;
}

template <class Kernel, class Arguments>
void play(Kernel kernel, const Arguments& arguments, int64_t blocks, int threads, bool meet) {
  std::barrier<> all(threads);
  meeting = &all;
  for (int64_t block = 0; block < blocks; ++block) {
    const auto thread = [&](int i) {
      threadIdx.x = unsigned(i), blockIdx.x = unsigned(block);
      kernel(arguments);
    };
    std::vector<std::thread> side_by_side;
    for (int i = 0; i < threads; ++i)
      if (meet) side_by_side.emplace_back(thread, i);
      else thread(i);
    for (auto& one : side_by_side) one.join();
  }
}
