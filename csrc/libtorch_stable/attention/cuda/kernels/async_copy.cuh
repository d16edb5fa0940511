// Copies from global to shared memory that do not go through registers: pieces on sm_80 and newer
// (older ones copy at once), any size on sm_90. Used by the page loader; stage_barriers.cuh says
// when they are finished; bulk copies are in common/cuda/bulk_copy.cuh.
#pragma once

#include <cstdint>

#include "common/cuda/bulk_copy.cuh"

namespace kvops::kernels {

// On entry both addresses are multiples of kBytes, 16 or 8.
template <int kBytes>
static __device__ __forceinline__ void copy_async(char* to, const char* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared_address(to)), "l"(from)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;\n" ::"r"(shared_address(to)), "l"(from)
                 : "memory");
  }
#else
  if constexpr (kBytes == 16) {
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
  } else {
    *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(from);
  }
#endif
}

}  // namespace kvops::kernels
