// fp8 values to 16 bytes of float, half or bfloat16, with a scale.
// Used by the movers that dequantise. Product in float, rounded to nearest even (spec 4.4).
#pragma once

#include "common/cuda/convert.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

// Two values at once, the first in the low half.
static __device__ __forceinline__ uint32_t narrow_to_halves(float first, float second, bfloat16_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return reinterpret_cast<const uint32_t&>(pair);
#else
  return narrow_as(first, bfloat16_t{}).bits |
         static_cast<uint32_t>(narrow_as(second, bfloat16_t{}).bits) << 16;
#endif
}

static __device__ __forceinline__ uint32_t narrow_to_halves(float first, float second, half_t) {
  const __half2 pair = __floats2half2_rn(first, second);
  return reinterpret_cast<const uint32_t&>(pair);
}

template <class Fp8, class T>
static __device__ __forceinline__ uint4 widen_scaled(const Packed<Fp8, 16 / sizeof(T)>& bytes,
                                                     float scale, T) {
  constexpr int kPairs = 8 / sizeof(T);
  const auto pairs = __builtin_bit_cast(Vec<uint16_t, kPairs>, bytes);
  Vec<uint32_t, 4> words;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const float2 pair = widen_pair(pairs.elems[i], Fp8{});
    const float first = __fmul_rn(pair.x, scale);
    const float second = __fmul_rn(pair.y, scale);
    if constexpr (sizeof(T) == sizeof(float)) {
      words.elems[2 * i] = __float_as_uint(first);
      words.elems[2 * i + 1] = __float_as_uint(second);
    } else {
      words.elems[i] = narrow_to_halves(first, second, T{});
    }
  }
  return __builtin_bit_cast(uint4, words);
}

}  // namespace kvops::kernels
