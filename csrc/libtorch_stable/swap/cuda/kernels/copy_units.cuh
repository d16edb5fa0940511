// Cutting a range into aligned units.
// Included by copy_blocks.cu and copy_in_order.cu.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace kvops::kernels {

// The widest access that can be aligned in source and target alike: 16, 8, 4, 2 or 1 bytes.
static __device__ __forceinline__ uint32_t common_unit_bytes(uint64_t dst, uint64_t src) {
  const uint32_t distance = static_cast<uint32_t>(dst ^ src) | 16u;
  return distance & (0u - distance);  // lowest bit that is set
}

// A range, cut into bytes before the first aligned unit, units, and a rest.
struct Parts {
  uint32_t head_bytes;
  uint64_t units;
};

template <class Unit>
static __device__ __forceinline__ Parts parts_of(uint64_t dst, uint64_t bytes) {
  const uint64_t to_next_unit = (0 - dst) & (sizeof(Unit) - 1);
  const auto head = static_cast<uint32_t>(to_next_unit < bytes ? to_next_unit : bytes);
  return {head, (bytes - head) / sizeof(Unit)};
}

}  // namespace kvops::kernels
