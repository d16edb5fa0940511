// How kernels count tokens and slots, and divide slots by the tokens of a block. 32 bits take a
// quarter of the instructions, which are what calls of some thousand tokens wait for; kernels of
// units of several elements count so, and those of single elements or bytes take any number.
// Used by the writers of caches and MLA entries.
#pragma once

#include <cstdint>

#include "common/cuda/divisor.cuh"

namespace kvops::kernels {

struct WideIndices {
  using Count = int64_t;
  using Division = Divisor;

  static Division division(int64_t divisor, int64_t end) { return {divisor, end}; }
};

// Of 2^31 tokens and slots at most.
struct NarrowIndices {
  using Count = uint32_t;
  using Division = NarrowDivisor;

  static Division division(int64_t divisor, int64_t /*end*/) { return Division(divisor); }
  static bool can_count(int64_t tokens, int64_t num_slots) {
    return tokens <= NarrowDivisor::kEnd && num_slots <= NarrowDivisor::kEnd;
  }
};

}  // namespace kvops::kernels
