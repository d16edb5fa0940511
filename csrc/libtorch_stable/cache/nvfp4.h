// Bytes of the nvfp4 format: 4-bit e2m1 elements, and an e4m3 scale for each group of 16 of them.
// Included by the CPU and the CUDA kernel, so that both compute the same bytes.
// Each operation is one IEEE float operation, rounded once: compile without contraction.
#pragma once

#include <cstdint>

#include "common/float_convert.h"

namespace kvops {

inline constexpr int64_t kNvfp4GroupElems = 16;
inline constexpr int64_t kNvfp4GroupBytes = kNvfp4GroupElems / 2;

// What the elements are multiplied by, on the whole: the scale argument is a divisor.
KVOPS_HOST_DEVICE static inline float nvfp4_global_factor(float scale) { return 1.0f / scale; }

// The scale of a group, in units of the scale argument; its largest magnitude becomes about 6.
KVOPS_HOST_DEVICE static inline e4m3_t nvfp4_group_scale(float amax, float global_factor) {
  return from_float<e4m3_t>(global_factor * (amax * (1.0f / 6.0f)));
}

// What the elements of a group are multiplied by.
KVOPS_HOST_DEVICE static inline float nvfp4_multiplier(e4m3_t group_scale, float global_factor) {
  const float scale = to_float(group_scale);
  return scale != 0.0f ? 1.0f / (scale * (1.0f / global_factor)) : 0.0f;
}

// To the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6, ties to the even code; beyond it 6, NaN +6.
KVOPS_HOST_DEVICE static inline uint32_t encode_e2m1(float x) {
  constexpr uint32_t kSix = 0x40c00000u;
  constexpr uint32_t kOne = 0x3f800000u;
  const uint32_t bits = float_bits(x);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t clamped = magnitude < kSix ? magnitude : kSix;
  const uint32_t exponent = clamped & 0x7f800000u;
  // Codes are multiples of half the power of two below, of 1 at least. Adding 2^22 such powers
  // leaves the multiple, rounded to nearest even, in the low bits.
  const uint32_t power = exponent > kOne ? exponent : kOne;
  const uint32_t magic = power + (22u << 23);
  const uint32_t multiple = float_bits(bits_float(clamped) + bits_float(magic)) - magic;
  const uint32_t code = multiple + (power >> 22) - (kOne >> 22);
  const uint32_t sign = magnitude > 0x7f800000u ? 0u : (bits >> 28) & 8u;
  return code | sign;
}

// Where in a page's [block_size, groups] scales of a head that of (offset, group) is stored, if
// they are in tiles: readers of SM100 want 4 x 4 of them transposed. `groups` is a multiple of 4.
struct Nvfp4Place {
  int64_t offset;
  int64_t group;
};
KVOPS_HOST_DEVICE static inline Nvfp4Place nvfp4_tiled_place(int64_t offset, int64_t group,
                                                             int64_t groups) {
  const int64_t quarter = groups / 4;
  return {offset / 4 * 4 + group / quarter, group % quarter * 4 + offset % 4};
}

}  // namespace kvops
