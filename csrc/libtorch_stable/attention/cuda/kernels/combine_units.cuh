// Units that several blocks share: each leaves its piece in the workspace, the last one to do so
// notes the unit and adds up all pieces at the end of its walk, in the order of the tokens. Used by
// the kernel, by all warps of a block that compute.
#pragma once

#include <cstdint>

#include "attention/cuda/kernels/plan.h"
#include "attention/cuda/kernels/stage_barriers.cuh"
#include "attention/cuda/kernels/unit_result.cuh"
#include "attention/cuda/kernels/work_split.cuh"

namespace kvops::kernels {

// Adds up pieces [begin, end) of a unit, kBatch loads under way at a time. `at` is the row in the
// first block's first slot: that block has the unit's first tile in its second slot, the others
// begin with it.
template <int kBatch>
static __device__ __forceinline__ RowSum add_pieces(const PagedAttentionParams& p,
                                                    const AttentionPlan& plan, int64_t at, int dim,
                                                    int begin, int end) {
  RowSum sum;
#pragma unroll 1
  for (int i = begin; i < end; i += kBatch) {
    float2 states[kBatch];
    float4 values[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      states[j] = {kNoLogit, 0.0f};
      values[j] = {};
      if (i + j >= end) continue;
      const int64_t row = at + ((i + j) * 2 + (i + j == 0 ? 1 : 0)) * plan.unit_heads;
      states[j] = __ldcg(plan.workspace.states + row);
      values[j] =
          __ldcg(reinterpret_cast<const float4*>(plan.workspace.values + row * p.head_size + dim));
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) sum.add(states[j].x, states[j].y, values[j]);
  }
  return sum;
}

// Adds up what all blocks have left of a unit. Where there are threads to spare, several have a
// part of the same row's pieces. Order and grouping are fixed: equal bytes each time.
template <int kBatch>
static __device__ __forceinline__ void combine_pieces(const PagedAttentionParams& p,
                                                      const AttentionPlan& plan, const Piece& piece,
                                                      int first_block, int blocks, char* shared) {
  const int items = static_cast<int>(p.head_size / 4) * piece.heads.count;
  const int threads = plan.warps * 32;
  const int parts = items * kCombineParts <= threads ? kCombineParts : 1;
  auto* const sums = reinterpret_cast<RowSum*>(shared + plan.shared.merge);
#pragma unroll 1
  for (int first = 0; first < items; first += threads) {
    const int part = parts == 1 ? 0 : static_cast<int>(threadIdx.x) / items;
    const int item = first + static_cast<int>(threadIdx.x) - part * items;
    const bool is_needed = item < items && part < parts;
    const auto row = static_cast<int>(plan.quarters.narrow_quotient(static_cast<uint32_t>(item)));
    const int dim = item * 4 - row * static_cast<int>(p.head_size);
    RowSum sum;
    if (is_needed) {
      const int64_t at = static_cast<int64_t>(first_block) * 2 * plan.unit_heads + row;
      sum =
          add_pieces<kBatch>(p, plan, at, dim, blocks * part / parts, blocks * (part + 1) / parts);
    }
    if (parts > 1) {
      if (is_needed && part > 0) sums[(part - 1) * items + item] = sum;
      compute_sync(plan);
      if (part > 0) continue;
#pragma unroll 1
      for (int other = 0; other < parts - 1; ++other) {
        const RowSum& more = sums[other * items + item];
        sum.add(more.max, more.sum, more.values);
      }
    }
    if (is_needed) finish_row(p, piece, row, dim, sum);
  }
}

// Everything that the block has written before is seen by who sees the sum.
static __device__ __forceinline__ uint64_t add_release(uint64_t* word, uint64_t value) {
  uint64_t before = 0;
#if defined(__CUDA_ARCH__)
  asm volatile("atom.add.release.gpu.global.u64 %0, [%1], %2;\n"
               : "=l"(before)
               : "l"(word), "l"(value)
               : "memory");
#endif
  return before;
}

// Counts the blocks of a unit that have left their pieces; true for the last one. The word may hold
// anything at first: a count belongs to this call only if it carries the call's number. What was
// counted without it counts again. The last one leaves a count of 0, for a graph that is replayed:
// its calls keep their numbers.
static __device__ __forceinline__ bool is_last_arrival(uint64_t* word, uint64_t call,
                                                       int32_t blocks) {
  uint64_t before = add_release(word, 1);
  if (before >> kArrivalBits != call >> kArrivalBits) {
    auto* const at = reinterpret_cast<unsigned long long*>(word);
    unsigned long long seen = before + 1;
    for (;;) {
      before = seen >> kArrivalBits == call >> kArrivalBits ? seen : call;
      const unsigned long long found = atomicCAS(at, seen, before + 1);
      if (found == seen) break;
      seen = found;
    }
  }
  if (before - call + 1 != static_cast<uint64_t>(blocks)) return false;
  *word = call;
  __threadfence();
  return true;
}

// Spares those that arrive the second look, if it is early enough. By one thread of the block that
// the word belongs to.
static __device__ __forceinline__ void claim_arrivals(const AttentionPlan& plan) {
  auto* const at = reinterpret_cast<unsigned long long*>(plan.workspace.arrivals + blockIdx.x);
  const unsigned long long seen = __ldcg(at);
  if (seen >> kArrivalBits == plan.call >> kArrivalBits) return;
  atomicCAS(at, seen, static_cast<unsigned long long>(plan.call));
}

// Units that the block is to combine: those of its first and its last piece at most. In shared
// memory; done after the walk, where registers are free.
struct Combines {
  struct Unit {
    Piece piece;
    int32_t first_block;
    int32_t blocks;
  };
  Unit units[2];
  int32_t count;
};
static_assert(sizeof(Combines) <= kCombinesBytes);

static __device__ __forceinline__ Combines& block_combines(const AttentionPlan& plan,
                                                           char* shared) {
  return *reinterpret_cast<Combines*>(shared + plan.shared.combines);
}

// The block of a piece's unit that has its first tile: there is the unit's count. No other unit has
// its first tile, but not its last one, in that block.
static __device__ __forceinline__ int32_t first_block_of(const TileRange& range,
                                                         const Piece& piece) {
  return piece.slot == 1 ? static_cast<int32_t>(blockIdx.x) : range.block_of(piece.first_tile);
}

// After the block has left its piece in the workspace: notes the unit if it is the last to do so.
// The block's barriers around pass on what the fences of one thread order.
static __device__ __forceinline__ void arrive(const AttentionPlan& plan, const TileRange& range,
                                              const Piece& piece, char* shared) {
  if (threadIdx.x != 0) return;
  const int32_t first_block = first_block_of(range, piece);
  const int32_t blocks = range.block_of(piece.end_tile - 1) - first_block + 1;
  if (is_last_arrival(plan.workspace.arrivals + first_block, plan.call, blocks)) {
    Combines& combines = block_combines(plan, shared);
    combines.units[combines.count] = {piece, first_block, blocks};
    ++combines.count;
  }
}

// At the end of the walk.
template <int kBatch>
static __device__ __forceinline__ void combine_units(const PagedAttentionParams& p,
                                                     const AttentionPlan& plan, char* shared) {
  compute_sync(plan);
  const Combines& combines = block_combines(plan, shared);
  for (int i = 0; i < combines.count; ++i) {
    const Combines::Unit unit = combines.units[i];
    combine_pieces<kBatch>(p, plan, unit.piece, unit.first_block, unit.blocks, shared);
    compute_sync(plan);
  }
}

}  // namespace kvops::kernels
