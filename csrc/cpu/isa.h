// One source, four instruction sets: each .inl is compiled once per namespace below, and the
// best one the processor has is chosen when the library is loaded. (Function attributes such as
// target_clones do not reach templates, hence the pragmas.)
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define FASTSNN_X86 1
#else
#define FASTSNN_X86 0
#endif

#if defined(__clang__)
#define FASTSNN_PRAGMA(text) _Pragma(#text)
#define FASTSNN_TARGET_AVX512 \
  FASTSNN_PRAGMA(clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function))
#define FASTSNN_TARGET_AVX512_BF16 \
  FASTSNN_PRAGMA(clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,fma"))), \
                                      apply_to = function))
#define FASTSNN_TARGET_AVX2 \
  FASTSNN_PRAGMA(clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function))
#define FASTSNN_TARGET_END FASTSNN_PRAGMA(clang attribute pop)
#else
#define FASTSNN_TARGET_AVX512 \
  _Pragma("GCC push_options") \
  _Pragma("GCC target(\"avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512\")")
#define FASTSNN_TARGET_AVX512_BF16 \
  _Pragma("GCC push_options") \
  _Pragma("GCC target(\"avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,fma,prefer-vector-width=512\")")
#define FASTSNN_TARGET_AVX2 _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma\")")
#define FASTSNN_TARGET_END _Pragma("GCC pop_options")
#endif

// Products may round once where the library as a whole rounds every operation (see multiply.inl).
#if defined(__clang__)
#define FASTSNN_CONTRACT
#define FASTSNN_CONTRACT_INSIDE FASTSNN_PRAGMA(clang fp contract(fast))
#else
#define FASTSNN_CONTRACT __attribute__((optimize("fp-contract=fast")))
#define FASTSNN_CONTRACT_INSIDE
#endif
