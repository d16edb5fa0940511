// Four fp8 values of a 32-bit word as two pairs of halves: exact, NaN stays NaN.
// Used by the tensor-core engine for fp8 caches; with cvt of sm_89, else in integer arithmetic.
// The first value is in the lowest byte.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "common/float_convert.h"

namespace kvops::kernels {

struct HalfPairs {
  uint32_t first;   // bytes 0 and 1
  uint32_t second;  // bytes 2 and 3
};

// An e5m2 is the upper byte of a half.
static __device__ __forceinline__ HalfPairs to_halves(uint32_t word, e5m2_t) {
  return {__byte_perm(word, 0, 0x1404), __byte_perm(word, 0, 0x3424)};
}

static __device__ __forceinline__ uint32_t e4m3_pair_to_halves(uint32_t upper_bytes) {
  const uint32_t magnitude = upper_bytes & 0x7f007f00u;
  // Read as a half, the number is too small by the difference of the exponents' biases, 2^-8.
  const uint32_t small = (upper_bytes & 0x80008000u) | magnitude >> 1;
  const __half2 scaled = __hmul2(reinterpret_cast<const __half2&>(small), __float2half2_rn(256.0f));
  const uint32_t is_nan = (magnitude + 0x01000100u) & 0x80008000u;
  return reinterpret_cast<const uint32_t&>(scaled) | (is_nan >> 15) * 0x7fffu;
}

static __device__ __forceinline__ HalfPairs to_halves(uint32_t word, e4m3_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  HalfPairs pairs;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "mov.b32 {low, high}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, low;\n"
      "cvt.rn.f16x2.e4m3x2 %1, high;\n"
      "}\n"
      : "=r"(pairs.first), "=r"(pairs.second)
      : "r"(word));
  return pairs;
#else
  return {e4m3_pair_to_halves(__byte_perm(word, 0, 0x1404)),
          e4m3_pair_to_halves(__byte_perm(word, 0, 0x3424))};
#endif
}

}  // namespace kvops::kernels
