// Bulk copies between global and shared memory, issued by one thread, and the barriers in shared
// memory that count their bytes: compute capability 9.0 on. Used by the page loader of attention
// and by the ring of the swaps. Addresses and bytes are multiples of 16.
#pragma once

#include <cstdint>

namespace kvops::kernels {

static __device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// To shared memory; the barrier counts bytes as they arrive. Nothing on older GPUs.
static __device__ __forceinline__ void copy_bulk(char* to, const char* from, uint32_t bytes,
                                                 const uint64_t* barrier) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
#endif
}

// What becomes of bytes in the L2 cache that a copy brings there: as without a policy, or they are
// the first to make room for what comes next. (evict_normal is not what copies do without a policy:
// long reads took 13 % longer with it.)
static __device__ __forceinline__ uint64_t cache_policy(bool leaves_first) {
  uint64_t policy = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (leaves_first) {
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;\n" : "=l"(policy));
  } else {
    asm("createpolicy.fractional.L2::evict_unchanged.b64 %0, 1.0;\n" : "=l"(policy));
  }
#endif
  return policy;
}

// Likewise, with such a policy.
static __device__ __forceinline__ void copy_bulk(char* to, const char* from, uint32_t bytes,
                                                 const uint64_t* barrier, uint64_t policy) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;\n" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
#endif
}

// Between ordinary accesses to shared memory that bulk copies write, and those copies.
static __device__ __forceinline__ void fence_shared_bulk() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

// Likewise, to global memory that they read.
static __device__ __forceinline__ void fence_global_bulk() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.global;\n" ::: "memory");
#endif
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// For one arrival a phase, which expect_bytes() is. Copies may use the barrier after
// fence_shared_bulk().
static __device__ __forceinline__ void init_bulk_barrier(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n" ::"r"(shared_address(barrier))
               : "memory");
}

// The phase ends when so many bytes have been copied.
static __device__ __forceinline__ void expect_bytes(const uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

// Until the phase of this parity (the first one's is 0) has ended.
static __device__ __forceinline__ void wait_for_bytes(const uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// From shared memory, as a group of its own.
static __device__ __forceinline__ void store_bulk(char* to, const char* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n" ::"l"(to),
               "r"(shared_address(from)), "r"(bytes)
               : "memory");
  asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
}

// Until the bytes of all but the thread's last stores have arrived.
template <int kLastStores>
static __device__ __forceinline__ void wait_for_stores() {
  asm volatile("cp.async.bulk.wait_group %0;\n" ::"n"(kLastStores) : "memory");
}

#endif

}  // namespace kvops::kernels
