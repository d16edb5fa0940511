// Paged attention: each block walks its share of all tiles, each of its warps 16 tokens of a tile.
// Launched through launch_paged_attention for each engine; see instantiations/. On entry
// plan.workspace.arrivals is 0. Shared memory is plan.shared.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "attention/cuda/kernels/page_loader.cuh"
#include "attention/cuda/kernels/unit_result.cuh"
#include "attention/cuda/kernels/work_split.cuh"
#include "common/cuda/capture.h"
#include "common/cuda/skipped.cuh"

namespace kvops::kernels {

// What no tile does: zeros for sequences without tokens, and lengths that are out of range.
static __device__ __forceinline__ void tidy_up(const PagedAttentionParams& p,
                                               const AttentionPlan& plan) {
  for (int64_t seq = blockIdx.x; seq < p.num_seqs; seq += gridDim.x) {
    const int64_t length = __ldg(p.seq_lens + seq);
    const int64_t tokens = clamped_length(p, length);
    if (threadIdx.x == 0 && length != tokens) {
      report_skipped(plan.skipped_lengths, seq, length);
    }
    if (tokens != 0) continue;
    const int64_t quarters = p.head_size / 4;
    for (int64_t i = threadIdx.x; i < p.num_heads * quarters; i += blockDim.x) {
      const int64_t head = i / quarters;
      store_out(p, seq, head, (i - head * quarters) * 4, {});
    }
  }
}

// The part of a unit that the block has, from its last tile.
static __device__ __forceinline__ Piece piece_at(const AttentionPlan& plan, const TileRange& range,
                                                 const TileCursor& last, int32_t first_tile) {
  Piece piece;
  piece.seq = last.seq;
  piece.seq_len = last.seq_len;
  piece.heads = unit_heads(plan, last.unit);
  piece.is_whole = first_tile == 0 && last.tile + 1 == last.tiles;
  piece.slot = first_tile == 0 ? 1 : 0;
  piece.first_tile = piece.end_tile = 0;
  if (!piece.is_whole) {
    piece.first_tile = range.begin(blockIdx.x + 1) - last.left - last.tile;
    piece.end_tile = piece.first_tile + last.tiles;
  }
  return piece;
}

template <class Engine>
static __device__ __forceinline__ void finish_unit(const PagedAttentionParams& p,
                                                   const AttentionPlan& plan, const Piece& piece,
                                                   Engine& engine, char* shared) {
  const int warp = static_cast<int>(threadIdx.x / 32);
  float* merge = reinterpret_cast<float*>(shared + plan.shared.merge);
  float2* states = reinterpret_cast<float2*>(shared + plan.shared.merge_states);
  for (int row = 0; row < piece.heads.count; row += kMergeRows) {
    const int left = piece.heads.count - row;
    const int rows = left < kMergeRows ? left : kMergeRows;
    engine.store_rows(row, rows, merge + warp * merge_rows(plan) * merge_pitch(p), merge_pitch(p),
                      states + warp * plan.unit_heads + row);
    merge_warps(p, plan, piece, row, rows, merge, states);
  }
  if (!piece.is_whole) {
    arrive<Engine::kCombineBatch>(p, plan, piece, block_scratch(plan, shared));
  }
}

// The walk of a warp. All warps of a block meet at the end of each unit.
template <class Engine>
static __device__ __forceinline__ void attend_share(const PagedAttentionParams& p,
                                                    const AttentionPlan& plan,
                                                    const TileCursor& cursor, char* shared) {
  PageLoader<typename Engine::Cache, Engine::kIsAligned> loader(p, plan, shared, cursor);
  for (int i = 1; i < plan.stages; ++i) loader.load_next();
  Engine engine(p, plan, shared);
  engine.reset();
  int32_t first_tile = -1;  // of the unit, in this block
  for (int slot = 0;; slot = slot + 1 == plan.stages ? 0 : slot + 1) {
    loader.load_next();
    __syncwarp();
    const Stage stage = loader.stage(slot);
    const StageInfo& info = *stage.info;
    if (first_tile < 0) {
      first_tile = info.at.tile;
      engine.begin_unit(info.at.seq, unit_heads(plan, info.at.unit));
      __syncthreads();
    }
    wait_for_copies(plan.stages - 1);
    __syncwarp();
    if (info.mask != 0) engine.attend(stage);
    if (info.at.tile + 1 == info.at.tiles || info.at.left == 1) {
      const Piece piece = piece_at(plan, block_scratch(plan, shared).range, info.at, first_tile);
      const bool is_last = info.at.left == 1;
      finish_unit(p, plan, piece, engine, shared);
      if (is_last) return;
      engine.reset();
      first_tile = -1;
    }
    // The stage is free, and what the engine left in shared memory.
    __syncwarp();
  }
}

template <class Engine>
__global__ void __launch_bounds__(kMaxWarps * 32, 2)
    paged_attention_kernel(const __grid_constant__ PagedAttentionParams p,
                           const __grid_constant__ AttentionPlan plan) {
#if defined(__CUDA_ARCH__)
  // Not chosen for older devices: no code for them.
  if constexpr (__CUDA_ARCH__ >= Engine::kArchitecture)
#endif
  {
    extern __shared__ __align__(128) char shared[];
    TileCursor cursor;
    find_share(p, plan, shared, cursor);
    if (cursor.left > 0) attend_share<Engine>(p, plan, cursor, shared);
    tidy_up(p, plan);
  }
}

template <class Engine>
cudaError_t launch_engine(const PagedAttentionParams& p, const AttentionPlan& plan,
                          cudaStream_t stream) {
  const auto kernel = paged_attention_kernel<Engine>;
  {
    // May load the kernel.
    const cuda::RelaxedCapture relaxed;
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             plan.shared.bytes);
    if (error != cudaSuccess) return error;
    // The plan counts on all of it; a second block would not fit beside a large L1 cache.
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                 cudaSharedmemCarveoutMaxShared);
    if (error != cudaSuccess) return error;
  }
  kernel<<<static_cast<unsigned>(plan.grid), static_cast<unsigned>(plan.warps * 32),
           static_cast<size_t>(plan.shared.bytes), stream>>>(p, plan);
  return cudaGetLastError();
}

}  // namespace kvops::kernels
