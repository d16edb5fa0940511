// Widens blocks of 64 elements to float, exactly.
// Included by kernel files only: everything is internal to the SIMD level being compiled.
#pragma once

#include <cstdint>

#include "common/float_convert.h"
#include "common/isa.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace kvops::cpu::KVOPS_ISA {
namespace {

constexpr int64_t kBlockElems = 64;

template <class T>
inline void widen_block(const T* __restrict in, float* __restrict out) {
  for (int64_t i = 0; i < kBlockElems; ++i) out[i] = to_float(in[i]);
}

#if defined(__F16C__)
// In integer arithmetic halves cost as much as all the rest; these instructions round alike.
inline void widen_block(const half_t* __restrict in, float* __restrict out) {
  for (int64_t i = 0; i < kBlockElems; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
}
#endif

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
