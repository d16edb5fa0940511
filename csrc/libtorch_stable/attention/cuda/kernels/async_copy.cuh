// Copies from global to shared memory that do not go through registers: pieces on sm_80 and newer
// (older ones copy at once), any size on sm_90. Used by the page loader; stage_barriers.cuh says
// when they are finished.
#pragma once

#include <cstdint>

namespace kvops::kernels {

static __device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

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

// Addresses and bytes are multiples of 16. The barrier counts bytes as they arrive.
static __device__ __forceinline__ void copy_bulk(char* to, const char* from, int bytes,
                                                 const uint64_t* barrier) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
#endif
}

}  // namespace kvops::kernels
