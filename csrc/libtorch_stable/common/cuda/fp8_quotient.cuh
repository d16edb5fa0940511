// Quotients x / scale narrowed to fp8, for one scale and many x: what depends on the scale alone is
// computed once, and a quotient of a 16-bit x costs two instructions.
// Used by writers of fp8 caches. Gives the bytes of narrow(x / scale) for every x and scale.
#pragma once

#include <cstdint>

#include "common/cuda/convert.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

// ---- packed elements, and floats

template <class T, int kCount>
struct Elems {
  T of[kCount];
};

// Two accesses.
struct alignas(16) Words32 {
  uint4 first;
  uint4 second;
};
template <>
struct PackedBytes<32> {
  using Type = Words32;
};
static __device__ __forceinline__ void store_words(Words32* to, const Words32& words) {
  store_words(&to->first, words.first);
  store_words(&to->second, words.second);
}

static __device__ __forceinline__ float2 widen_word(uint32_t pair, bfloat16_t) {
  return {bits_float(pair << 16), bits_float(pair & 0xffff0000u)};
}
static __device__ __forceinline__ float2 widen_word(uint32_t pair, half_t) {
  return widen_halves(pair);
}

template <class T, int kCount>
static __device__ __forceinline__ Elems<float, kCount> widen_packed(const Packed<T, kCount>& in) {
  if constexpr (sizeof(T) == 4) {
    return __builtin_bit_cast(Elems<float, kCount>, in);
  } else if constexpr (kCount == 1) {
    return {widen(__builtin_bit_cast(T, in))};
  } else {
    const auto words = __builtin_bit_cast(Elems<uint32_t, kCount / 2>, in);
    Elems<float, kCount> x;
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      const float2 pair = widen_word(words.of[i], T{});
      x.of[2 * i] = pair.x;
      x.of[2 * i + 1] = pair.y;
    }
    return x;
  }
}

template <class Fp8, int kCount>
static __device__ __forceinline__ Packed<Fp8, kCount> narrow_packed(const Elems<float, kCount>& x) {
  if constexpr (kCount == 1) {
    return narrow_as(x.of[0], Fp8{}).bits;
  } else if constexpr (kCount == 2) {
    return narrow_pair(x.of[0], x.of[1], Fp8{});
  } else {
    Elems<uint32_t, kCount / 4> words;
#pragma unroll
    for (int i = 0; i < kCount / 4; ++i) {
      const uint32_t low = narrow_pair(x.of[4 * i], x.of[4 * i + 1], Fp8{});
      const uint32_t high = narrow_pair(x.of[4 * i + 2], x.of[4 * i + 3], Fp8{});
      words.of[i] = low | high << 16;
    }
    return __builtin_bit_cast(Packed<Fp8, kCount>, words);
  }
}

// ---- quotients

// Correct for any x and scale: 9 instructions for a quotient.
class AnyFp8Quotient {
 public:
  // Numerator and denominator are multiplied by the same power of two, which brings any finite
  // scale but 0 near 1. A numerator that overflows by that has a quotient beyond fp8, and one that
  // underflows a quotient of which fp8 keeps the sign only.
  __device__ explicit AnyFp8Quotient(float scale) {
    const float magnitude = fabsf(scale);
    factor_ = magnitude < 0x1p-60f ? 0x1p100f : magnitude > 0x1p60f ? 0x1p-100f : 1.0f;
    const float near_one = __fmul_rn(scale, factor_);
    reciprocal_ = __frcp_rn(near_one);
    // The quotients of an infinite scale, 0 or NaN, must stay as the reciprocal makes them.
    denominator_ = fabsf(near_one) <= 0x1p60f ? near_one : 0.0f;
  }

  // Two corrections by the remainder make the product with the (correctly rounded) reciprocal the
  // correctly rounded quotient, unless something over- or underflows. What underflows is below
  // 2^-40 and only its sign matters; what is large, infinite or NaN narrows to the same byte
  // without corrections, which would make NaN of infinity.
  __device__ __forceinline__ float operator()(float x) const {
    const float numerator = __fmul_rn(x, factor_);
    const float first = __fmul_rn(numerator, reciprocal_);
    const float second = corrected(first, numerator);
    const float third = corrected(second, numerator);
    // A correction turns -0 into 0.
    return fabsf(first) < 0x1p20f ? copysignf(third, first) : first;
  }

 private:
  __device__ __forceinline__ float corrected(float quotient, float numerator) const {
    return __fmaf_rn(__fmaf_rn(-quotient, denominator_, numerator), reciprocal_, quotient);
  }

  float factor_;
  float denominator_;
  float reciprocal_;
};

template <class Fp8, class T, int kCount>
static __device__ __forceinline__ Packed<Fp8, kCount> divide_by_any(const Packed<T, kCount>& in,
                                                                    float scale) {
  const AnyFp8Quotient quotient(scale);
  auto x = widen_packed<T, kCount>(in);
#pragma unroll
  for (int i = 0; i < kCount; ++i) x.of[i] = quotient(x.of[i]);
  return narrow_packed<Fp8>(x);
}

class Fp8Quotient {
 public:
  // 1 / scale as the sum of two floats of the same sign. The first one is less than it, by 1 to 5
  // units in its last place, so the second one is never 0: products with infinity stay infinite,
  // and those with -0 stay -0. Scales near the ends of float are multiplied by a power of two, and
  // numerators with them, so that nothing over- or underflows of which fp8 keeps more than the
  // sign.
  __device__ explicit Fp8Quotient(float scale) : scale_(scale) {
    const float magnitude = fabsf(scale);
    factor_ = magnitude < 0x1p-100f ? 0x1p60f : magnitude > 0x1p100f ? 0x1p-60f : 1.0f;
    const float divisor = __fmul_rn(scale, factor_);
    float near;  // to one unit in the last place
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(near) : "f"(divisor));
    near = __fmul_rn(near, 0x1.fffffap-1f);
    const float rest = __fmaf_rn(-divisor, near, 1.0f);
    const float step = __fmul_rn(near, rest);
    const float remainder = __fmaf_rn(step, rest, step);
    // Of a significand of only ones, the quotient of a power of two is above the middle of two
    // floats, by less than what the sum may lack: more of it does no harm elsewhere.
    const bool only_ones = (~float_bits(divisor) & 0x007fffffu) == 0;
    remainder_ = only_ones ? __fmaf_rn(near, 0x1p-40f, remainder) : remainder;
    // The quotients of an infinite scale, 0 or NaN are as the first part makes them.
    if (rest != rest) remainder_ = near;
    reciprocal_ = near;
  }

  // The bytes of narrow(x / scale) for every element x.
  template <class Fp8, class T, int kCount>
  __device__ __forceinline__ Packed<Fp8, kCount> divide(const Packed<T, kCount>& in) const {
    if constexpr (sizeof(T) == 4) {
      return divide_by_any<Fp8, T, kCount>(in, scale_);
    } else {
      auto x = widen_packed<T, kCount>(in);
      if (__builtin_expect(factor_ != 1.0f, false)) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) x.of[i] = __fmul_rn(x.of[i], factor_);
      }
#pragma unroll
      for (int i = 0; i < kCount; ++i) x.of[i] = near_quotient(x.of[i]);
      return narrow_packed<Fp8>(x);
    }
  }

 private:
  // Before its last rounding it is the quotient but for 2^-43 of it, or a little more than it for
  // the scale of only ones. So it is another float only where the quotient is that near the middle
  // of two floats, and another fp8 value only if one of the two is the middle of two fp8 values.
  // For x of 11 bits or fewer that happens for no significand of the scale:
  // tests/cuda/test_fp8_quotient.py tries every one.
  __device__ __forceinline__ float near_quotient(float x) const {
    return __fmaf_rn(x, reciprocal_, __fmul_rn(x, remainder_));
  }

  float scale_;
  float factor_;
  float reciprocal_;
  float remainder_;
};

}  // namespace kvops::kernels
