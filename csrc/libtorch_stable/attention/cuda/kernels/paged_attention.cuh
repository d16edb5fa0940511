// The kernel of paged attention: one block for each multiprocessor, each its share of all tiles
// (work_split.cuh). Two groups of warps take turns with tiles: two warps of a group load them into
// its stages of a ring (page_loader.cuh), each of the others attends to 16 tokens (the engine).
// Together all groups add up at the end of a unit (unit_result.cuh, combine_units.cuh). Launched
// through launch_paged_attention for each engine; see instantiations/. Shared memory is
// plan.shared.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

#include "attention/cuda/kernels/combine_units.cuh"
#include "attention/cuda/kernels/page_loader.cuh"
#include "attention/cuda/kernels/stage.cuh"
#include "attention/cuda/kernels/stage_barriers.cuh"
#include "attention/cuda/kernels/unit_result.cuh"
#include "attention/cuda/kernels/work_split.cuh"
#include "common/cuda/capture.h"
#include "common/cuda/launch.cuh"
#include "common/cuda/skipped.cuh"

namespace kvops::kernels {

// What no tile does: zeros for sequences without tokens, what version 2 has to say of partitions,
// and lengths that are out of range. By one warp of each block.
static __device__ __noinline__ void tidy_up(const PagedAttentionParams& p,
                                            const AttentionPlan& plan) {
  const auto lane = static_cast<int>(threadIdx.x % 32);
  if (p.exp_sums != nullptr) neutral_sums(p);
#pragma unroll 1
  for (int64_t seq = blockIdx.x; seq < p.num_seqs; seq += gridDim.x) {
    const int64_t length = __ldg(p.seq_lens + seq);
    const int64_t tokens = clamped_length(p, length);
    if (lane == 0 && length != tokens) report_skipped(plan.skipped_lengths, seq, length);
    if (tokens != 0) continue;
    const auto quarters = static_cast<int>(p.head_size / 4);
#pragma unroll 1
    for (int64_t head = 0; head < p.num_heads; ++head) {
#pragma unroll 1
      for (int i = lane; i < quarters; i += 32) store_out(p, seq, head, i * 4, {});
    }
  }
}

// The piece that the walk is at.
static __device__ __forceinline__ Piece piece_at(const AttentionPlan& plan, const ShareWalk& walk) {
  Piece piece;
  piece.seq = walk.seq;
  piece.seq_len = walk.seq_len;
  piece.heads = unit_heads(plan, walk.unit);
  piece.is_whole = walk.piece_tiles() == walk.tiles;
  piece.slot = walk.tile == 0 ? 1 : 0;
  return piece;
}

template <class Engine>
static __device__ __forceinline__ void finish_unit(const PagedAttentionParams& p,
                                                   const AttentionPlan& plan,
                                                   const TileRange& range, const ShareWalk& walk,
                                                   Engine& engine, char* shared) {
  const Piece piece = piece_at(plan, walk);
  // The last one: it has the least to add up.
  const bool arrives = !piece.is_whole && static_cast<int>(threadIdx.x) == plan.warps * 32 - 1;
  UnitBlocks blocks = {};
  if (arrives) blocks = unit_blocks(range, walk);
  const WarpRows of_warps(p, plan, shared);
  const int warp = not_hoisted(static_cast<int>(threadIdx.x / 32));
#pragma unroll 1
  for (int row = 0; row < piece.heads.count; row += plan.shared.merge_rows) {
    const int left = piece.heads.count - row;
    const int rows = left < plan.shared.merge_rows ? left : plan.shared.merge_rows;
    engine.store_rows(row, rows, of_warps.values(warp), of_warps.states(warp));
    compute_sync(plan);
    merge_warps(p, plan, piece, row, rows, of_warps);
    compute_sync(plan);
  }
  if (arrives) arrive(plan, blocks, piece, shared);
}

// The work of a warp that computes. These meet at the beginning and the end of each unit.
template <class Engine>
static __device__ __forceinline__ void attend_share(const PagedAttentionParams& p,
                                                    const AttentionPlan& plan,
                                                    const TileRange& range, ShareWalk walk,
                                                    char* shared) {
  const auto group = static_cast<int>(threadIdx.x / 32) >= plan.tile_warps ? 1 : 0;
  const int warp = static_cast<int>(threadIdx.x / 32) - group * plan.tile_warps;
  const StageBarriers barriers(plan, shared);
  const StageLayout& layout = plan.shared.stage;
  const StageOffsets offsets(layout, warp, plan.key_piece_bytes,
                             static_cast<int>(sizeof(typename Engine::Cache)));
  Engine engine(p, plan, offsets, shared);
  Turn turn(group);
  for (RingPlace at; walk.left > 0; walk.next_piece(p, plan)) {
    engine.begin_unit(walk.seq, unit_heads(plan, walk.unit));
    const int32_t end = walk.tile + walk.piece_tiles();
    for (int32_t tile = walk.tile; tile < end; ++tile, at.advance(plan)) {
      if (!turn.is_mine(plan)) continue;
      barriers.wait_until_full(at);
      const uint32_t mask = stage_info(plan, shared, at.slot)->masks[warp];
      const char* stage = shared + plan.shared.stages + at.slot * layout.bytes;
      // Only looked at where there is a token: then it is the distance.
      const uint32_t position =
          (static_cast<uint32_t>(tile) * static_cast<uint32_t>(plan.tile_warps) +
           static_cast<uint32_t>(warp)) *
          kWarpTokens;
      if (mask != 0) {
        engine.attend({stage + offsets.keys, stage + offsets.values, mask,
                       static_cast<int32_t>(position + 1 - static_cast<uint32_t>(walk.seq_len))});
      }
      barriers.release(at.slot);
    }
    finish_unit(p, plan, range, walk, engine, shared);
  }
  combine_units(p, plan, shared);
}

template <class Engine>
__global__ void __maxnreg__(Engine::kRegisters)
    paged_attention_kernel(const __grid_constant__ PagedAttentionParams p,
                           const __grid_constant__ AttentionPlan plan) {
#if defined(__CUDA_ARCH__)
  // Not chosen for older devices: no code for them.
  if constexpr (__CUDA_ARCH__ >= Engine::kArchitecture)
#endif
  {
    extern __shared__ __align__(128) char shared[];
    if (threadIdx.x == 0) {
      StageBarriers(plan, shared).create();
      block_combines(plan, shared).count = 0;
    }
    TileRange range(0, 1);
    const ShareWalk walk = find_share(p, plan, range);
    __syncthreads();
    const int loader = static_cast<int>(threadIdx.x / 32) - plan.warps;
    if (loader < 0) {
      attend_share<Engine>(p, plan, range, walk, shared);
    } else {
      PageLoader<typename Engine::Cache, Engine::kMayBeUnaligned>(p, plan, shared, loader)
          .run(walk);
      if (loader == 1) tidy_up(p, plan);
    }
  }
}

// Once per device: the plan counts on all shared memory, and a second block would not fit beside a
// large L1 cache.
template <class Engine>
cudaError_t allow_shared_memory(const AttentionPlan& plan) {
  static std::atomic<uint64_t> devices{0};
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
  if ((devices.load(std::memory_order_acquire) & bit) != 0) return cudaSuccess;
  // May load the kernel.
  const cuda::RelaxedCapture relaxed;
  const auto kernel = paged_attention_kernel<Engine>;
  error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_limit);
  if (error != cudaSuccess) return error;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                               cudaSharedmemCarveoutMaxShared);
  if (error == cudaSuccess) devices.fetch_or(bit, std::memory_order_release);
  return error;
}

template <class Engine>
cudaError_t launch_engine(const PagedAttentionParams& p, const AttentionPlan& plan,
                          cudaStream_t stream) {
  const cudaError_t error = allow_shared_memory<Engine>(plan);
  if (error != cudaSuccess) return error;
  return launch_kernel_with_shared(
      paged_attention_kernel<Engine>, static_cast<unsigned>(plan.grid),
      static_cast<unsigned>((plan.warps + plan.groups * kLoaderWarps) * 32),
      static_cast<size_t>(plan.shared.bytes), stream, p, plan);
}

}  // namespace kvops::kernels
