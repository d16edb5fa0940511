// One copy of a swap, as every layer below the operators passes it on.
// Plain numbers: an address may be on any device, and pointers into different memory have no order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvops::cuda {

struct Copy {
  uintptr_t src;
  uintptr_t dst;
  size_t bytes;
  int64_t index;  // of the caller's first entry in it, for messages
};

}  // namespace kvops::cuda
