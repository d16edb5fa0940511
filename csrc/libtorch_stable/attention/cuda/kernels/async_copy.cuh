// Copies from global to shared memory that do not go through registers (sm_80 and newer; older ones
// copy at once). Used by the page loader; a copy is finished after wait_for_copies. Only the first
// bytes of a piece may be valid: the rest becomes 0 and is not read.
#pragma once

#include <cstdint>

namespace kvops::kernels {

static __device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// On entry both addresses are multiples of kBytes, 16 or 8.
template <int kBytes>
static __device__ __forceinline__ void copy_async(char* to, const char* from, int valid_bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (kBytes == 16) {
    // Neighbouring bytes belong to other warps of the block: they come from L2 then.
    asm volatile(
        "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)),
        "l"(from), "r"(valid_bytes)
        : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;\n" ::"r"(shared_address(to)),
                 "l"(from), "r"(valid_bytes)
                 : "memory");
  }
#else
  constexpr int kWords = kBytes / 4;
  uint32_t words[kWords] = {};
  if (valid_bytes > 0) {
    // Within the page, valid or not.
    if constexpr (kBytes == 16) {
      const uint4 piece = *reinterpret_cast<const uint4*>(from);
      words[0] = piece.x, words[1] = piece.y, words[2] = piece.z, words[3] = piece.w;
    } else {
      const uint2 piece = *reinterpret_cast<const uint2*>(from);
      words[0] = piece.x, words[1] = piece.y;
    }
  }
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const int valid = valid_bytes - 4 * i;
    const uint32_t mask = valid >= 4 ? ~0u : valid > 0 ? (1u << (8 * valid)) - 1u : 0u;
    reinterpret_cast<uint32_t*>(to)[i] = words[i] & mask;
  }
#endif
}

static __device__ __forceinline__ void commit_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

template <int kPending>
static __device__ __forceinline__ void wait_for_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
#endif
}

// Waits until at most `pending` of this thread's commits, the newest, are unfinished.
static __device__ __forceinline__ void wait_for_copies(int pending) {
  switch (pending) {
    case 0:
      return wait_for_copies<0>();
    case 1:
      return wait_for_copies<1>();
    case 2:
      return wait_for_copies<2>();
    case 3:
      return wait_for_copies<3>();
    case 4:
      return wait_for_copies<4>();
    default:
      return wait_for_copies<5>();
  }
}

}  // namespace kvops::kernels
