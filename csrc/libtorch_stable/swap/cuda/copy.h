// One copy of a swap, as every layer below the operators passes it on.
// Plain numbers: an address may be on any device, and pointers into different memory have no order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "swap/params.h"

namespace kvops::cuda {

struct Copy {
  uintptr_t src;
  uintptr_t dst;
  size_t bytes;
  int64_t index;  // of the caller's first entry in it, for messages
};

// Of tables that validation has looked at.
inline Copy copy_of(const SwapBlocksBatchParams& tables, int64_t i) {
  return {.src = static_cast<uintptr_t>(tables.src_ptrs[i]),
          .dst = static_cast<uintptr_t>(tables.dst_ptrs[i]),
          .bytes = static_cast<size_t>(tables.sizes[i]),
          .index = i};
}

inline bool copies_nothing(const Copy& copy) { return copy.bytes == 0 || copy.src == copy.dst; }

}  // namespace kvops::cuda
