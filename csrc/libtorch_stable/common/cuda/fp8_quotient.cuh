// Quotients x / scale that are about to be narrowed to fp8, for one scale and many x: with the
// reciprocal computed once, an exact quotient costs 8 instructions and no branch.
// Used by writers of fp8 caches. Gives the bytes of narrow(x / scale) for every x and scale.
#pragma once

#include <cstdint>

#include "common/cuda/convert.cuh"

namespace kvops::kernels {

class Fp8Quotient {
 public:
  __device__ explicit Fp8Quotient(float scale) {
    scale_ = scale;
    reciprocal_ = __frcp_rn(scale);
    is_tame_ = fabsf(scale) >= 0x1p-60f && fabsf(scale) <= 0x1p60f;
  }

  // bytes[i] = narrow(x[i] / scale).
  template <class Fp8, int kCount>
  __device__ __forceinline__ void divide(const float (&x)[kCount], Fp8 (&bytes)[kCount]) const {
    float quotients[kCount];
    if (is_tame_) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) quotients[i] = tame_quotient(x[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) quotients[i] = __fdiv_rn(x[i], scale_);
    }
    if constexpr (kCount % 2 == 0) {
#pragma unroll
      for (int i = 0; i < kCount; i += 2) {
        const uint16_t pair = narrow_pair(quotients[i], quotients[i + 1], Fp8{});
        bytes[i].bits = static_cast<uint8_t>(pair);
        bytes[i + 1].bits = static_cast<uint8_t>(pair >> 8);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) bytes[i] = narrow_as(quotients[i], Fp8{});
    }
  }

 private:
  // Two corrections by the remainder make the product with the (correctly rounded) reciprocal the
  // correctly rounded quotient, unless something over- or underflows. What underflows is below
  // 2^-40 and only its sign matters; what is large, infinite or NaN narrows to the same byte
  // without corrections, which would make NaN of infinity.
  __device__ __forceinline__ float tame_quotient(float x) const {
    const float first = __fmul_rn(x, reciprocal_);
    const float second = __fmaf_rn(__fmaf_rn(-first, scale_, x), reciprocal_, first);
    const float third = __fmaf_rn(__fmaf_rn(-second, scale_, x), reciprocal_, second);
    // A correction turns -0 into 0.
    return fabsf(first) < 0x1p20f ? copysignf(third, first) : first;
  }

  float scale_;
  float reciprocal_;
  bool is_tame_;
};

}  // namespace kvops::kernels
