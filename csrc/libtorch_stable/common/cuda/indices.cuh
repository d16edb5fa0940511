// How kernels count tokens and slots, and divide slots by the tokens of a block. 32 bits take a
// quarter of the instructions, which are what calls of some thousand tokens wait for; kernels of
// units of several elements count so, and those of single elements or bytes take any number.
// Strides in bytes that are added to an address for each slot are counted likewise. Used by the
// writers of caches and MLA entries.
#pragma once

#include <cstdint>

#include "common/cuda/divisor.cuh"

namespace kvops::kernels {

struct WideIndices {
  using Count = int64_t;
  using Stride = int64_t;
  using Gap = int64_t;
  using Division = Divisor;

  static Division division(int64_t divisor, int64_t end) { return {divisor, end}; }
};

// Of 2^31 tokens and slots at most.
struct NarrowIndices {
  using Count = uint32_t;
  using Stride = uint32_t;
  using Gap = int32_t;
  using Division = NarrowDivisor;

  static Division division(int64_t divisor, int64_t /*end*/) { return Division(divisor); }
  static bool can_count(int64_t tokens, int64_t num_slots) {
    return tokens <= NarrowDivisor::kEnd && num_slots <= NarrowDivisor::kEnd;
  }
  static bool can_stride(int64_t stride) { return 0 <= stride && stride <= UINT32_MAX; }
  // Blocks of so many slots: what they have behind their slots.
  static bool can_stride(int64_t block_stride, int64_t slot_stride, int64_t block_size) {
    const int64_t gap = block_stride - block_size * slot_stride;
    return can_stride(slot_stride) && INT32_MIN <= gap && gap <= INT32_MAX;
  }
};

}  // namespace kvops::kernels
