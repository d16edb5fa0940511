// Rows of half, bfloat16 or float to rows of float and back; rounding to one of them.
// For half with F16C: compilers do not find its instructions in a loop over to_float().
// Bytes are those of float_convert.h; between widen_row and round_row, a NaN may keep its payload.
#pragma once

#include <cstdint>

#include "common/float_convert.h"
#include "common/isa.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace kvops::cpu::KVOPS_ISA {
namespace {

template <class T>
inline void widen_row(const T* __restrict__ in, int64_t count, float* __restrict__ out) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_float(in[i]);
}

template <class T>
inline void narrow_row(const float* __restrict__ in, int64_t count, T* __restrict__ out) {
  for (int64_t i = 0; i < count; ++i) out[i] = from_float<T>(in[i]);
}

// To the nearest T, still as floats. The last argument only selects the type.
template <class T>
inline void round_row(float* row, int64_t count, T) {
  for (int64_t i = 0; i < count; ++i) row[i] = to_float(from_float<T>(row[i]));
}

#if defined(__F16C__)
constexpr int64_t kHalfLanes = 8;
constexpr int kToNearestEven = _MM_FROUND_TO_NEAREST_INT;

inline __m128i canonical_nan(__m128i halves) {
  const __m128i magnitude = _mm_and_si128(halves, _mm_set1_epi16(0x7fff));
  const __m128i is_nan = _mm_cmpgt_epi16(magnitude, _mm_set1_epi16(0x7c00));
  return _mm_blendv_epi8(halves, _mm_set1_epi16(0x7fff), is_nan);
}

inline void widen_row(const half_t* __restrict__ in, int64_t count, float* __restrict__ out) {
  int64_t i = 0;
  for (; i + kHalfLanes <= count; i += kHalfLanes) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
  for (; i < count; ++i) out[i] = to_float(in[i]);
}

inline void narrow_row(const float* __restrict__ in, int64_t count, half_t* __restrict__ out) {
  int64_t i = 0;
  for (; i + kHalfLanes <= count; i += kHalfLanes) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(in + i), kToNearestEven);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), canonical_nan(halves));
  }
  for (; i < count; ++i) out[i] = from_float<half_t>(in[i]);
}

inline void round_row(float* row, int64_t count, half_t) {
  int64_t i = 0;
  for (; i + kHalfLanes <= count; i += kHalfLanes) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(row + i), kToNearestEven);
    _mm256_storeu_ps(row + i, _mm256_cvtph_ps(halves));
  }
  for (; i < count; ++i) row[i] = to_float(from_float<half_t>(row[i]));
}
#endif

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
