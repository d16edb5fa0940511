// Bytes of the nvfp4 format: 4-bit e2m1 elements, and an e4m3 scale for each group of 16 of them.
// Included by the CPU and the CUDA kernel, so that both compute the same bytes.
// Each operation is one IEEE float operation, rounded once: compile without contraction.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/float_convert.h"

namespace kvops {

inline constexpr int64_t kNvfp4GroupElems = 16;
inline constexpr int64_t kNvfp4GroupBytes = kNvfp4GroupElems / 2;

// What the elements are multiplied by, on the whole: the scale argument is a divisor.
KVOPS_HOST_DEVICE static inline float nvfp4_global_factor(float scale) { return 1.0f / scale; }

// The scale of a group before it is rounded to e4m3, in units of the scale argument; the largest
// magnitude of the group becomes about 6.
KVOPS_HOST_DEVICE static inline float nvfp4_group_scale(float amax, float global_factor) {
  return global_factor * (amax * (1.0f / 6.0f));
}

// What the elements of a group are multiplied by: of its rounded scale, and of 1 / global_factor.
KVOPS_HOST_DEVICE static inline float nvfp4_multiplier(float group_scale, float inverse_factor) {
  return group_scale != 0.0f ? 1.0f / (group_scale * inverse_factor) : 0.0f;
}

// Of two floats; the second one if the first is NaN.
KVOPS_HOST_DEVICE static inline float nvfp4_smaller(float a, float b) {
#if defined(__CUDA_ARCH__)
  return fminf(a, b);
#else
  return a < b ? a : b;
#endif
}

// The magnitude to the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6, ties to the even code; beyond it, and
// of NaN, 6. The code is what the bits exceed those of 2^23 by.
inline constexpr uint32_t kE2m1Base = 0x4b000000u;
KVOPS_HOST_DEVICE static inline uint32_t e2m1_magnitude_bits(float x) {
  // Codes are 2 a for magnitudes up to 2, a + 2 up to 4 and a / 2 + 4 from there on: always the
  // smallest of the three, also when rounded. Adding 2^23 leaves the rounded number in the low bits
  // (products by powers of two are exact, so fusing them into the addition changes nothing).
  constexpr float kMagic = 8388608.0f;
  const float a = nvfp4_smaller(fabsf(x), 6.0f);
  const float by_halves = a * 2.0f + kMagic;
  const float by_ones = a + (kMagic + 2.0f);
  const float by_twos = a * 0.5f + (kMagic + 4.0f);
#if defined(__CUDA_ARCH__)
  // Positive numbers order like their bits, of which one instruction may take three.
  return min(min(float_bits(by_halves), float_bits(by_ones)), float_bits(by_twos));
#else
  return float_bits(nvfp4_smaller(nvfp4_smaller(by_halves, by_ones), by_twos));
#endif
}

// The code with its sign, that of NaN is positive.
KVOPS_HOST_DEVICE static inline uint32_t encode_e2m1(float x) {
  const uint32_t bits = float_bits(x);
  uint32_t sign = (bits >> 28) & 8u;
#if !defined(__CUDA_ARCH__)
  // A processor's NaN has a sign; that of a GPU's arithmetic is always positive.
  sign = (bits & 0x7fffffffu) > 0x7f800000u ? 0u : sign;
#endif
  return (e2m1_magnitude_bits(x) - kE2m1Base) | sign;
}

// Where in a page's [block_size, groups] scales of a head that of (offset, group) is stored, if
// they are in tiles: readers of SM100 want 4 x 4 of them transposed. The group is given by the
// quarter of the head that it is in, and its place there.
struct Nvfp4Place {
  int64_t offset;
  int64_t group;
};
KVOPS_HOST_DEVICE static inline Nvfp4Place nvfp4_tiled_place(int64_t offset, int64_t quarter,
                                                             int64_t group_in_quarter) {
  const int64_t token_in_tile = offset & 3;
  return {offset - token_in_tile + quarter, group_in_quarter * 4 + token_in_tile};
}

}  // namespace kvops
