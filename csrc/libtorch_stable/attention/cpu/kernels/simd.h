// Vectors of floats for the attention kernels: GCC/Clang vector extensions, 4 to 16 lanes.
// Included by kernel files only, so it is compiled once per SIMD level; nothing is exported.
// Intrinsics appear only where the extensions cannot say it, or compilers do it badly.
#pragma once

#include <cstdint>

#include "common/float_convert.h"
#include "common/isa.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace kvops::cpu::KVOPS_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

constexpr int64_t kCacheLineBytes = 64;

template <class T, int kCount>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * kCount)));
};
template <int kCount>
using Floats = typename VectorOf<float, kCount>::type;
template <int kCount>
using Ints = typename VectorOf<int32_t, kCount>::type;
template <int kCount>
using Words = typename VectorOf<uint32_t, kCount>::type;
template <int kCount>
using HalfWords = typename VectorOf<uint16_t, kCount>::type;
template <int kCount>
using Bytes = typename VectorOf<uint8_t, kCount>::type;

#define KVOPS_INLINE inline __attribute__((always_inline))

// ---- memory

template <class Vector>
KVOPS_INLINE Vector load_as(const void* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <int kCount>
KVOPS_INLINE Floats<kCount> load(const float* from) {
  return load_as<Floats<kCount>>(from);
}

template <class Vector>
KVOPS_INLINE void store(float* to, Vector vector) {
  __builtin_memcpy(to, &vector, sizeof(vector));
}

template <int kCount>
KVOPS_INLINE Floats<kCount> broadcast(float value) {
  return Floats<kCount>{} + value;
}

// Brings memory that will be read soon into the second-level cache. Any address will do.
template <int64_t kBytes>
KVOPS_INLINE void prefetch(const void* from) {
  const char* line = static_cast<const char*>(from);
#pragma GCC unroll 16
  for (int64_t offset = 0; offset < kBytes; offset += kCacheLineBytes) {
    __builtin_prefetch(line + offset, 0, 2);
  }
}

// ---- lanes

template <class Vector>
KVOPS_INLINE Vector select(decltype(Vector{} < Vector{}) mask, Vector yes, Vector no) {
  return mask ? yes : no;
}

template <int... kIndices, class Vector>
KVOPS_INLINE Vector shuffle(Vector a, Vector b) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, kIndices...);
#else
  return __builtin_shuffle(a, b,
                           typename VectorOf<int32_t, sizeof...(kIndices)>::type{kIndices...});
#endif
}

// Sums of neighbours: lane i is lanes 2i + (2i + 1) of a followed by b.
KVOPS_INLINE Floats<4> add_pairs(Floats<4> a, Floats<4> b) {
  return shuffle<0, 2, 4, 6>(a, b) + shuffle<1, 3, 5, 7>(a, b);
}
#if defined(__AVX2__)
// Within 128-bit parts first, then one permutation: AVX2 has no cheaper way.
KVOPS_INLINE Floats<8> add_pairs(Floats<8> a, Floats<8> b) {
  const Floats<8> sums =
      shuffle<0, 2, 8, 10, 4, 6, 12, 14>(a, b) + shuffle<1, 3, 9, 11, 5, 7, 13, 15>(a, b);
  return shuffle<0, 1, 4, 5, 2, 3, 6, 7>(sums, sums);
}
#endif
#if defined(__AVX512F__)
KVOPS_INLINE Floats<16> add_pairs(Floats<16> a, Floats<16> b) {
  return shuffle<0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30>(a, b) +
         shuffle<1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31>(a, b);
}
#endif

// Adds up each run of kRun lanes of the vectors, taken as one array; both are powers of 2. The
// sums are left at the front of that array, in order.
template <int kRun, int kVectors, class Vector>
KVOPS_INLINE void sum_runs(Vector* vectors) {
  if constexpr (kRun > 1) {
    constexpr int kHalf = kVectors > 1 ? kVectors / 2 : 1;
#pragma GCC unroll 16
    for (int i = 0; i < kHalf; ++i) {
      vectors[i] = add_pairs(vectors[2 * i], vectors[kVectors > 1 ? 2 * i + 1 : 2 * i]);
    }
    sum_runs<kRun / 2, kHalf>(vectors);
  }
}

// Writes the first kRows * kRowFloats floats of the vectors as rows; vectors may hold more.
template <int kRows, int kRowFloats, class Vector>
KVOPS_INLINE void store_rows(const Vector* vectors, float* rows, int64_t pitch) {
  constexpr int kVectorFloats = sizeof(Vector) / sizeof(float);
  constexpr int kUsed = (kRows * kRowFloats + kVectorFloats - 1) / kVectorFloats;
  float ordered[kUsed * kVectorFloats];
  __builtin_memcpy(ordered, vectors, sizeof(ordered));
#pragma GCC unroll 4
  for (int row = 0; row < kRows; ++row) {
    __builtin_memcpy(rows + row * pitch, ordered + row * kRowFloats, kRowFloats * sizeof(float));
  }
}

constexpr int round_up_to_power_of_2(int n) {
  return n <= 1 ? 1 : 2 * round_up_to_power_of_2((n + 1) / 2);
}

template <int kCount>
KVOPS_INLINE float sum_lanes(Floats<kCount> vector) {
  sum_runs<kCount, 1>(&vector);
  return vector[0];
}

template <int kCount>
KVOPS_INLINE float max_lanes(Floats<kCount> vector) {
  float largest = vector[0];
  for (int i = 1; i < kCount; ++i) largest = vector[i] > largest ? vector[i] : largest;
  return largest;
}

// ---- exponential

// exp(x) for x <= 0, within 2 ulp; below -87.3 it is 0 (exp would be subnormal). NaN stays NaN.
template <int kCount>
KVOPS_INLINE Floats<kCount> exp_nonpositive(Floats<kCount> x) {
  using Vector = Floats<kCount>;
  constexpr float kLowest = -87.33654f;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vector clamped = select<Vector>(x < kLowest, broadcast<kCount>(kLowest), x);
  const Vector rounded = clamped * 1.44269504f + kRounder;
  const Vector exponent = rounded - kRounder;
  // ln 2 in two parts: the first is exact when multiplied by an exponent.
  const Vector r = (clamped - exponent * 0.693359375f) + exponent * 2.12194440e-4f;
  // Taylor's series to the 7th power; |r| <= ln(2) / 2 keeps the rest below 2^-27.
  Vector series = r * 1.98412698e-4f + 1.38888889e-3f;
  series = series * r + 8.33333333e-3f;
  series = series * r + 4.16666667e-2f;
  series = series * r + 1.66666667e-1f;
  series = series * r + 0.5f;
  series = series * (r * r) + r + 1.0f;
  const Words<kCount> power = (reinterpret_cast<Words<kCount>>(rounded) << 23) + (127u << 23);
  const Vector result = series * reinterpret_cast<Vector>(power);
  return select<Vector>(x < kLowest, Vector{}, result);
}

// ---- elements of a cache to floats

// Floats of kCount stored elements, times 1 / kLoadFactor<T>: exact, NaN stays NaN.
template <class T>
constexpr float kLoadFactor = 1.0f;

template <int kCount>
KVOPS_INLINE Floats<kCount> load_floats(const float* from) {
  return load<kCount>(from);
}

// GCC takes several instructions for a __builtin_convertvector that widens; these take one.
template <int kCount>
KVOPS_INLINE Words<kCount> widen(HalfWords<kCount> narrow) {
#if defined(__AVX512F__)
  if constexpr (kCount == 16) {
    return reinterpret_cast<Words<kCount>>(
        _mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(narrow)));
  }
#endif
#if defined(__AVX2__)
  if constexpr (kCount == 8) {
    return reinterpret_cast<Words<kCount>>(
        _mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(narrow)));
  }
#endif
  return __builtin_convertvector(narrow, Words<kCount>);
}

// Sign-extended.
template <int kCount>
KVOPS_INLINE HalfWords<kCount> widen_signed(Bytes<kCount> narrow) {
#if defined(__AVX2__)
  if constexpr (kCount == 16) {
    return reinterpret_cast<HalfWords<kCount>>(
        _mm256_cvtepi8_epi16(reinterpret_cast<__m128i>(narrow)));
  }
  if constexpr (kCount == 8) {
    const __m128i bytes = _mm_cvtsi64_si128(__builtin_bit_cast(int64_t, narrow));
    return reinterpret_cast<HalfWords<kCount>>(_mm_cvtepi8_epi16(bytes));
  }
#endif
  using SignedBytes = typename VectorOf<int8_t, kCount>::type;
  using Signed = typename VectorOf<int16_t, kCount>::type;
  return reinterpret_cast<HalfWords<kCount>>(
      __builtin_convertvector(reinterpret_cast<SignedBytes>(narrow), Signed));
}

template <int kCount>
KVOPS_INLINE Floats<kCount> load_floats(const bfloat16_t* from) {
  return reinterpret_cast<Floats<kCount>>(widen<kCount>(load_as<HalfWords<kCount>>(from)) << 16);
}

template <int kCount>
KVOPS_INLINE Floats<kCount> halves_to_floats(HalfWords<kCount> halves) {
#if defined(__F16C__)
  if constexpr (kCount == 8) {
    return _mm256_cvtph_ps(reinterpret_cast<__m128i>(halves));
  }
#if defined(__AVX512F__)
  if constexpr (kCount == 16) {
    return _mm512_maskz_cvtph_ps(0xffff, reinterpret_cast<__m256i>(halves));
  }
#endif
#else
  // As to_float(half_t) does it; the subtraction renormalises subnormals exactly.
  using Vector = Floats<kCount>;
  const Words<kCount> bits = widen<kCount>(halves);
  const Words<kCount> magnitude = (bits & 0x7fffu) << 13;
  const Vector subnormal = reinterpret_cast<Vector>(magnitude + (113u << 23)) - 0x1p-14f;
  Words<kCount> result = magnitude + (112u << 23);
  result = magnitude < (1u << 23) ? reinterpret_cast<Words<kCount>>(subnormal) : result;
  result = magnitude >= (31u << 23) ? magnitude + (224u << 23) : result;
  return reinterpret_cast<Vector>(result | ((bits & 0x8000u) << 16));
#endif
}

template <int kCount>
KVOPS_INLINE Floats<kCount> load_floats(const half_t* from) {
  return halves_to_floats<kCount>(load_as<HalfWords<kCount>>(from));
}

// E5M2 is the upper byte of a half.
template <int kCount>
KVOPS_INLINE Floats<kCount> load_floats(const e5m2_t* from) {
  return halves_to_floats<kCount>(widen_signed<kCount>(load_as<Bytes<kCount>>(from)) << 8);
}

// E4M3, shifted into the fields of a half, is that number / 256, subnormals included: the two
// exponents differ in bias only. Its NaN would become 480 and is put back.
template <>
constexpr float kLoadFactor<e4m3_t> = 256.0f;

template <int kCount>
KVOPS_INLINE Floats<kCount> load_floats(const e4m3_t* from) {
  using Halves = HalfWords<kCount>;
  const Halves shifted = widen_signed<kCount>(load_as<Bytes<kCount>>(from)) << 7;
  const Halves magnitude = shifted & uint16_t{0x3f80};
  const Halves is_nan = reinterpret_cast<Halves>(magnitude == uint16_t{0x3f80});
  return halves_to_floats<kCount>((shifted & uint16_t{0xbfff}) | is_nan);
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
