// Which code of this library a device runs, for choices between kernels that not every architecture
// has. Only for files that nvcc compiles: it says which architectures those are.
#pragma once

#include <cstdint>

namespace kvops::kernels {

// A device of compute capability major.minor, here major * 10 + minor, runs the newest code that is
// not newer than itself.
inline int32_t newest_code(int32_t architecture) {
  int32_t newest = 0;
  for (const int32_t code : {__CUDA_ARCH_LIST__}) {
    if (code / 10 <= architecture && code / 10 > newest) newest = code / 10;
  }
  return newest;
}

}  // namespace kvops::kernels
