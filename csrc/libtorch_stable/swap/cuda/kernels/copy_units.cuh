// What the copy kernels share: filling tables, and cutting a range into aligned units.
// Included by copy_blocks.cuh and copy_in_order.cu.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "swap/cuda/copy.h"
#include "swap/cuda/kernels/copy_table.h"

namespace kvops::kernels {

// Takes copies of any size and hands out one table after the other.
class TableFiller {
 public:
  explicit TableFiller(std::span<const cuda::Copy> copies) : rest_(copies) {}

  // False if nothing was left.
  template <int kCapacity>
  bool fill(CopyTable<kCapacity>& table) {
    table.num_entries = 0;
    table.num_pieces = 0;
    while (!rest_.empty() && table.num_entries < kCapacity) {
      const cuda::Copy& copy = rest_.front();
      const auto bytes =
          static_cast<uint32_t>(std::min<size_t>(copy.bytes - done_bytes_, kMaxEntryBytes));
      table.entries[table.num_entries++] = {copy.src + done_bytes_, copy.dst + done_bytes_, bytes,
                                            table.num_pieces};
      table.num_pieces += (bytes + kPieceBytes - 1) / kPieceBytes;
      done_bytes_ += bytes;
      if (done_bytes_ == copy.bytes) {
        rest_ = rest_.subspan(1);
        done_bytes_ = 0;
      }
    }
    return table.num_entries > 0;
  }

 private:
  std::span<const cuda::Copy> rest_;
  size_t done_bytes_ = 0;  // of the first of the rest
};

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
