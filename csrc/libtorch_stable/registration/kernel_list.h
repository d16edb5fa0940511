// One row of a device's kernel list: an operator's name and its boxed function.
// Filled by cpu.cpp (in _C) and cuda.cpp (in _C_cuda); read again when names of peers are claimed.
// Names must be those of schemas.h; tests compare the lists.
#pragma once

#include <cstring>

#include "common/stable.h"

namespace kvops {

struct Kernel {
  const char* name;
  void (*boxed)(StableIValue*, uint64_t, uint64_t);
};

template <size_t kCount>
const Kernel* find_kernel(const Kernel (&kernels)[kCount], const char* name) {
  for (const Kernel& kernel : kernels) {
    if (std::strcmp(kernel.name, name) == 0) return &kernel;
  }
  return nullptr;
}

}  // namespace kvops
