// How the warps that load and the warps that compute hand stages to each other. sm_80 and newer
// have barriers in shared memory that wait for asynchronous copies too; before that, copies are not
// asynchronous and the block's named barriers do.
#pragma once

#include <cstdint>

#include "attention/cuda/kernels/async_copy.cuh"
#include "attention/cuda/kernels/plan.h"

namespace kvops::kernels {

// Named barriers: 0 is __syncthreads, 1 is of the computing warps, then two per stage.
inline constexpr int kComputeBarrier = 1;
inline constexpr int kFirstStageBarrier = 2;
static_assert(kFirstStageBarrier + 2 * kMaxNamedStages <= 16);

static __device__ __forceinline__ void named_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}
static __device__ __forceinline__ void named_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}

// All warps that compute.
static __device__ __forceinline__ void compute_sync(const AttentionPlan& plan) {
  named_sync(kComputeBarrier, plan.warps * 32);
}

// Which stage comes next, and how often the ring has been around.
struct RingPlace {
  int slot = 0;
  uint32_t round = 0;

  __device__ __forceinline__ void advance(const AttentionPlan& plan) {
    if (++slot == plan.stages) {
      slot = 0;
      ++round;
    }
  }
};

// When a group has a tile: every plan.groups tiles of its block.
class Turn {
 public:
  explicit __device__ __forceinline__ Turn(int group) : left_(group) {}
  // Called for one tile after the other.
  __device__ __forceinline__ bool is_mine(const AttentionPlan& plan) {
    if (left_-- > 0) return false;
    left_ = plan.groups - 1;
    return true;
  }
  __device__ __forceinline__ int left() const { return left_; }

 private:
  int left_;
};

class StageBarriers {
 public:
  __device__ StageBarriers(const AttentionPlan& plan, char* shared)
      : plan_(plan), full_(reinterpret_cast<uint64_t*>(shared + plan.shared.barriers)) {}

  // By one thread, before the block's first barrier.
  __device__ __forceinline__ void create() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    // Announcements, and every lane's copies of pieces.
    const int loaders = kLoaderWarps * (plan_.copy == PageCopy::kWhole ? 1 : 33);
#pragma unroll 1
    for (int i = 0; i < plan_.stages; ++i) {
      init(full_ + i, loaders);
      init(full_ + plan_.stages + i, plan_.tile_warps);
    }
    init(full_ + 2 * plan_.stages, 1);
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
#endif
#endif
  }

  // ---- a warp that loads

  // Until the stage's last tile has been attended to.
  __device__ __forceinline__ void wait_until_free(const RingPlace& at) const {
    if (at.round == 0) return;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    wait(full_ + plan_.stages + at.slot, (at.round - 1) & 1);
#else
    named_sync(kFirstStageBarrier + plan_.stages + at.slot, all_threads());
#endif
  }

  // By one lane, after what ordinary stores of the warp put into the stage: bulk copies of so many
  // bytes belong to it, or pieces.
  __device__ __forceinline__ void announce(int slot, int bulk_bytes) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    expect_bytes(full_ + slot, bulk_bytes);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    arrive(full_ + slot);
#endif
  }

  // By every lane, after its copies of pieces or elements.
  __device__ __forceinline__ void pieces_issued(int slot) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if (plan_.copy == PageCopy::kPieces) {
      asm volatile(
          "cp.async.mbarrier.arrive.noinc.shared.b64 [%0];\n" ::"r"(shared_address(full_ + slot))
          : "memory");
    } else {
      arrive(full_ + slot);
    }
#else
    named_arrive(kFirstStageBarrier + slot, all_threads());
#endif
  }

  __device__ __forceinline__ const uint64_t* full(int slot) const { return full_ + slot; }

  // ---- the warps that compute

  __device__ __forceinline__ void wait_until_full(const RingPlace& at) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    wait(full_ + at.slot, at.round & 1);
#else
    named_sync(kFirstStageBarrier + at.slot, all_threads());
#endif
  }

  // By all lanes, when the warp needs nothing of the stage any more.
  __device__ __forceinline__ void release(int slot) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(full_ + plan_.stages + slot);
#else
    named_arrive(kFirstStageBarrier + plan_.stages + slot, all_threads());
#endif
  }

  // Bulk copies of so many bytes to where stages have been, by one thread; `round` counts them.
  __device__ __forceinline__ void announce_combine(int bytes) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    expect_bytes(combine(), bytes);
#endif
  }
  __device__ __forceinline__ void wait_for_combine(uint32_t round) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    wait(combine(), round & 1);
#endif
  }
  __device__ __forceinline__ const uint64_t* combine() const { return full_ + 2 * plan_.stages; }

 private:
  // That meet at a stage: those that load it and the group that computes with it.
  __device__ __forceinline__ int all_threads() const {
    return (plan_.tile_warps + kLoaderWarps) * 32;
  }

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  static __device__ __forceinline__ void init(uint64_t* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;\n" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
  }

  static __device__ __forceinline__ void arrive(uint64_t* barrier) {
    asm volatile(
        "{\n"
        ".reg .b64 state;\n"
        "mbarrier.arrive.shared.b64 state, [%0];\n"
        "}\n" ::"r"(shared_address(barrier))
        : "memory");
  }

  static __device__ __forceinline__ void wait(const uint64_t* barrier, uint32_t parity) {
    const uint32_t address = shared_address(barrier);
    uint32_t is_done = 0;
    while (is_done == 0) {
#if __CUDA_ARCH__ >= 900
      asm volatile(
          "{\n"
          ".reg .pred done;\n"
          "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
          "selp.u32 %0, 1, 0, done;\n"
          "}\n"
          : "=r"(is_done)
          : "r"(address), "r"(parity)
          : "memory");
#else
      asm volatile(
          "{\n"
          ".reg .pred done;\n"
          "mbarrier.test_wait.parity.shared.b64 done, [%1], %2;\n"
          "selp.u32 %0, 1, 0, done;\n"
          "}\n"
          : "=r"(is_done)
          : "r"(address), "r"(parity)
          : "memory");
#endif
    }
  }
#endif

  const AttentionPlan& plan_;
  // [stages], then [stages] that say that a stage is free, then one for what is combined
  uint64_t* full_;
};

}  // namespace kvops::kernels
