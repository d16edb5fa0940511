// Quotients x / scale that are about to be narrowed to fp8, for one scale and many x: with the
// reciprocal computed once, a quotient costs 9 instructions and no branch.
// Used by writers of fp8 caches. Gives the bytes of narrow(x / scale) for every x and scale.
#pragma once

#include <cstdint>

#include "common/cuda/convert.cuh"

namespace kvops::kernels {

class Fp8Quotient {
 public:
  // Numerator and denominator are multiplied by the same power of two, which brings any finite
  // scale but 0 near 1. A numerator that overflows by that has a quotient beyond fp8, and one that
  // underflows a quotient of which fp8 keeps the sign only.
  __device__ explicit Fp8Quotient(float scale) {
    const float magnitude = fabsf(scale);
    factor_ = magnitude < 0x1p-60f ? 0x1p100f : magnitude > 0x1p60f ? 0x1p-100f : 1.0f;
    const float near_one = __fmul_rn(scale, factor_);
    reciprocal_ = __frcp_rn(near_one);
    // The quotients of an infinite scale, 0 or NaN, must stay as the reciprocal makes them.
    denominator_ = fabsf(near_one) <= 0x1p60f ? near_one : 0.0f;
  }

  // bytes[i] = narrow(x[i] / scale).
  template <class Fp8, int kCount>
  __device__ __forceinline__ void divide(const float (&x)[kCount], Fp8 (&bytes)[kCount]) const {
    if constexpr (kCount % 2 == 0) {
#pragma unroll
      for (int i = 0; i < kCount; i += 2) {
        const uint16_t pair = narrow_pair(quotient(x[i]), quotient(x[i + 1]), Fp8{});
        bytes[i].bits = static_cast<uint8_t>(pair);
        bytes[i + 1].bits = static_cast<uint8_t>(pair >> 8);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) bytes[i] = narrow_as(quotient(x[i]), Fp8{});
    }
  }

 private:
  // Two corrections by the remainder make the product with the (correctly rounded) reciprocal the
  // correctly rounded quotient, unless something over- or underflows. What underflows is below
  // 2^-40 and only its sign matters; what is large, infinite or NaN narrows to the same byte
  // without corrections, which would make NaN of infinity.
  __device__ __forceinline__ float quotient(float x) const {
    const float numerator = __fmul_rn(x, factor_);
    const float first = __fmul_rn(numerator, reciprocal_);
    const float second = corrected(first, numerator);
    const float third = corrected(second, numerator);
    // A correction turns -0 into 0.
    return fabsf(first) < 0x1p20f ? copysignf(third, first) : first;
  }

  __device__ __forceinline__ float corrected(float quotient, float numerator) const {
    return __fmaf_rn(__fmaf_rn(-quotient, denominator_, numerator), reciprocal_, quotient);
  }

  float factor_;
  float denominator_;
  float reciprocal_;
};

}  // namespace kvops::kernels
