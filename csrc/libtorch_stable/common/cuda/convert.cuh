// Conversions between float and the narrow formats on the GPU, with its own instructions where it
// has them. The same bytes as common/float_convert.h on every architecture (tests compare them),
// but a NaN that is widened may be another NaN: arithmetic and narrowing make it the usual one.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "common/float_convert.h"

namespace kvops::kernels {

// ---- widen: to float, exact

static __device__ __forceinline__ float widen(float x) { return x; }
static __device__ __forceinline__ float widen(bfloat16_t x) { return to_float(x); }
static __device__ __forceinline__ float widen(half_t x) {
  return __half2float(__builtin_bit_cast(__half, x.bits));
}

static __device__ __forceinline__ float2 widen_halves(uint32_t pair) {
  return {widen(half_t{static_cast<uint16_t>(pair)}),
          widen(half_t{static_cast<uint16_t>(pair >> 16)})};
}

// Two fp8 values at once, the first in the low byte.
static __device__ __forceinline__ float2 widen_pair(uint16_t pair, e4m3_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(pair));
  return widen_halves(halves);
#else
  return {to_float(e4m3_t{static_cast<uint8_t>(pair & 0xff)}),
          to_float(e4m3_t{static_cast<uint8_t>(pair >> 8)})};
#endif
}

static __device__ __forceinline__ float2 widen_pair(uint16_t pair, e5m2_t) {
  // An e5m2 is the upper byte of a half.
  const uint32_t halves =
      (static_cast<uint32_t>(pair & 0xff) << 8) | (static_cast<uint32_t>(pair >> 8) << 24);
  return widen_halves(halves);
}

// ---- narrow_as: from float, rounded to nearest even, NaN to the positive quiet NaN

static __device__ __forceinline__ float narrow_as(float x, float) { return x; }

static __device__ __forceinline__ bfloat16_t narrow_as(float x, bfloat16_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  return narrow(x, bfloat16_t{});
#endif
}

static __device__ __forceinline__ half_t narrow_as(float x, half_t) {
  return {__half_as_ushort(__float2half_rn(x))};
}

static __device__ __forceinline__ e4m3_t narrow_as(float x, e4m3_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(x));
  return {static_cast<uint8_t>(pair)};
#else
  return narrow(x, e4m3_t{});
#endif
}

static __device__ __forceinline__ e5m2_t narrow_as(float x, e5m2_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(x));
  return {static_cast<uint8_t>(pair)};
#else
  return narrow(x, e5m2_t{});
#endif
}

// Two values at once; the first goes into the low byte.
static __device__ __forceinline__ uint16_t narrow_pair(float first, float second, e4m3_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return static_cast<uint16_t>(narrow(first, e4m3_t{}).bits | narrow(second, e4m3_t{}).bits << 8);
#endif
}

static __device__ __forceinline__ uint16_t narrow_pair(float first, float second, e5m2_t) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return static_cast<uint16_t>(narrow(first, e5m2_t{}).bits | narrow(second, e5m2_t{}).bits << 8);
#endif
}

}  // namespace kvops::kernels
