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

// The part of the cursor's unit that the block has, once the cursor is at its last tile.
static __device__ __forceinline__ Piece piece_at(const AttentionPlan& plan, const TileRange& range,
                                                 const TileCursor& cursor, int32_t first_tile) {
  Piece piece;
  piece.seq = cursor.seq;
  piece.seq_len = cursor.seq_len;
  piece.heads = unit_heads(plan, cursor.unit);
  piece.is_whole = first_tile == 0 && cursor.tile + 1 == cursor.tiles;
  piece.slot = first_tile == 0 ? 1 : 0;
  piece.first_tile = piece.end_tile = 0;
  if (!piece.is_whole) {
    const int64_t here = range.begin(blockIdx.x + 1) - cursor.left;
    piece.first_tile = here - cursor.tile;
    piece.end_tile = piece.first_tile + cursor.tiles;
  }
  return piece;
}

template <class Engine>
static __device__ __forceinline__ void finish_unit(const PagedAttentionParams& p,
                                                   const AttentionPlan& plan,
                                                   const TileRange& range, const Piece& piece,
                                                   Engine& engine, char* shared) {
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int merge_rows = plan.unit_heads < kMergeRows ? plan.unit_heads : kMergeRows;
  float* merge = reinterpret_cast<float*>(shared + plan.shared.merge);
  float2* states = reinterpret_cast<float2*>(shared + plan.shared.merge_states);
  for (int row = 0; row < piece.heads.count; row += kMergeRows) {
    const int left = piece.heads.count - row;
    const int rows = left < kMergeRows ? left : kMergeRows;
    engine.store_rows(row, rows, merge + warp * merge_rows * p.head_size,
                      states + warp * plan.unit_heads + row);
    merge_warps(p, plan, piece, row, rows, merge, states);
  }
  if (!piece.is_whole) {
    arrive(p, plan, range, piece, reinterpret_cast<int64_t*>(shared + plan.shared.scratch));
  }
}

template <class Engine>
static __device__ __forceinline__ void attend_share(const PagedAttentionParams& p,
                                                    const AttentionPlan& plan,
                                                    const TileRange& range, TileCursor cursor,
                                                    char* shared) {
  PageLoader<typename Engine::Cache> loader(p, plan, shared, cursor);
  for (int i = 1; i < plan.stages; ++i) loader.load_next();
  Engine engine(p, plan, shared);
  engine.begin_unit(cursor.seq, unit_heads(plan, cursor.unit));
  __syncthreads();
  int32_t first_tile = cursor.tile;
  int slot = 0;
  while (cursor.left > 0) {
    loader.load_next();
    wait_for_copies(plan.stages - 1);
    __syncwarp();
    const Stage stage = loader.stage(slot);
    if (stage.info.mask != 0) engine.attend(stage, cursor.seq_len);
    // The stage is free, and what the engine left in shared memory.
    __syncwarp();
    slot = slot + 1 == plan.stages ? 0 : slot + 1;
    if (cursor.tile + 1 == cursor.tiles || cursor.left == 1) {
      const Piece piece = piece_at(plan, range, cursor, first_tile);
      finish_unit(p, plan, range, piece, engine, shared);
      cursor.advance(p, plan);
      if (cursor.left == 0) return;
      first_tile = cursor.tile;
      engine.begin_unit(cursor.seq, unit_heads(plan, cursor.unit));
      __syncthreads();
    } else {
      cursor.advance(p, plan);
    }
  }
}

template <class Engine>
__global__ void __launch_bounds__(kMaxWarps * 32, 2)
    paged_attention_kernel(const __grid_constant__ PagedAttentionParams p,
                           const __grid_constant__ AttentionPlan plan) {
  extern __shared__ __align__(128) char shared[];
  int64_t* scratch = reinterpret_cast<int64_t*>(shared + plan.shared.scratch);
  TileCursor cursor;
  const TileRange range = find_share(p, plan, scratch, cursor);
  if (cursor.left > 0) attend_share<Engine>(p, plan, range, cursor, shared);
  tidy_up(p, plan);
}

template <class Engine>
cudaError_t launch_engine(const PagedAttentionParams& p, const AttentionPlan& plan,
                          cudaStream_t stream) {
  const auto kernel = paged_attention_kernel<Engine>;
  {
    // May load the kernel.
    const cuda::RelaxedCapture relaxed;
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared.bytes);
    if (error != cudaSuccess) return error;
  }
  kernel<<<static_cast<unsigned>(plan.grid), static_cast<unsigned>(plan.warps * 32),
           static_cast<size_t>(plan.shared.bytes), stream>>>(p, plan);
  return cudaGetLastError();
}

}  // namespace kvops::kernels
