// Units that several blocks share: each leaves its piece in the workspace, the last one to do so
// notes the unit and adds up all pieces at the end of its walk, in the order of the tokens. Used by
// the kernel, by all warps of a block that compute.
#pragma once

#include <cstdint>

#include "attention/cuda/kernels/plan.h"
#include "attention/cuda/kernels/stage_barriers.cuh"
#include "attention/cuda/kernels/unit_result.cuh"
#include "attention/cuda/kernels/work_split.cuh"
#include "common/cuda/bulk_copy.cuh"

namespace kvops::kernels {

// Of the unit that a walk is at. The first block has its count of arrivals: no other unit has its
// first tile, but not its last one, in that block.
static __device__ __forceinline__ UnitBlocks unit_blocks(const TileRange& range,
                                                         const ShareWalk& walk) {
  if (walk.blocks.count > 0) return walk.blocks;
  const auto block = static_cast<int32_t>(blockIdx.x);
  const int64_t tile = range.begin(block + 1) - walk.left;
  const int32_t first = walk.tile == 0 ? block : range.block_of(tile - walk.tile);
  return {first, range.block_of(tile - walk.tile + walk.tiles - 1) - first + 1};
}

// Quarters of rows that a thread adds up at once.
inline constexpr int kCombineItems = 2;

// Some of a unit's pieces: `items` quarters from the `first_item`th on, of all heads that it has.
struct PieceBatch {
  int64_t row;  // in the workspace, of the first block's first slot
  int32_t heads;
  int32_t first_item;
  int32_t items;
  int32_t begin;  // pieces [begin, begin + count)
  int32_t count;

  // The first block has the unit's first tile in its second slot, the others begin with it.
  __device__ __forceinline__ int64_t piece_row(const AttentionPlan& plan, int i) const {
    const int piece = begin + i;
    return row + (piece * 2 + (piece == 0 ? 1 : 0)) * plan.unit_heads;
  }
};

// Where a batch is in shared memory, in place of stages.
struct StagedPieces {
  float4* values;  // [count][items]
  float2* states;  // [count][heads]

  __device__ __forceinline__ StagedPieces(const AttentionPlan& plan, char* shared)
      : values(reinterpret_cast<float4*>(shared + plan.shared.combine_values)),
        states(reinterpret_cast<float2*>(shared + plan.shared.combine_states)) {}
};

// By all threads; what they have done with the stages before is ordered by fence_shared_bulk() and
// a barrier. Unlike loads to registers, all of it can be under way at once, in few instructions:
// these are as cold as the data.
static __device__ __forceinline__ void fetch_pieces(const PagedAttentionParams& p,
                                                    const AttentionPlan& plan,
                                                    const PieceBatch& batch,
                                                    const StagedPieces& staged,
                                                    const StageBarriers& barriers, uint32_t round) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int threads = plan.warps * 32;
  const auto values_of = [&](int i) {
    return plan.workspace.values + batch.piece_row(plan, i) * p.head_size + batch.first_item * 4;
  };
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const int bytes = batch.items * static_cast<int>(sizeof(float4));
  if (thread < 32) {
    fence_global_bulk();
#pragma unroll 1
    for (int i = thread; i < batch.count; i += 32) {
      copy_bulk(reinterpret_cast<char*>(staged.values + i * batch.items),
                reinterpret_cast<const char*>(values_of(i)), bytes, barriers.combine());
    }
    if (thread == 0) barriers.announce_combine(batch.count * bytes);
  }
#else
#pragma unroll 1
  for (int item = thread; item < batch.items; item += threads) {
#pragma unroll 4
    for (int i = 0; i < batch.count; ++i) {
      staged.values[i * batch.items + item] =
          __ldcg(reinterpret_cast<const float4*>(values_of(i)) + item);
    }
  }
#endif
#pragma unroll 1
  for (int i = thread; i < batch.count * batch.heads; i += threads) {
    const int piece = i / batch.heads;
    const int head = i - piece * batch.heads;
    staged.states[i] = __ldcg(plan.workspace.states + batch.piece_row(plan, piece) + head);
  }
  compute_sync(plan);
  barriers.wait_for_combine(round);
}

// Adds a batch to what is known of an item.
static __device__ __forceinline__ void add_pieces(const PieceBatch& batch,
                                                  const StagedPieces& staged, int item, int row,
                                                  RowSum& sum) {
  float max = sum.max;
#pragma unroll 4
  for (int i = 0; i < batch.count; ++i) max = fmaxf(max, staged.states[i * batch.heads + row].x);
  sum.raise(max);
#pragma unroll 4
  for (int i = 0; i < batch.count; ++i) {
    sum.add(staged.states[i * batch.heads + row], staged.values[i * batch.items + item]);
  }
}

// Adds up what all blocks have left of a unit, in the order of the tokens: equal bytes each time.
// `round` counts batches.
static __device__ __forceinline__ void combine_pieces(const PagedAttentionParams& p,
                                                      const AttentionPlan& plan, const Piece& piece,
                                                      const UnitBlocks& blocks, char* shared,
                                                      uint32_t& round) {
  const StagedPieces staged(plan, shared);
  const StageBarriers barriers(plan, shared);
  const auto dims = static_cast<int>(p.head_size);
  const int threads = plan.warps * 32;
  const int items = dims / 4 * piece.heads.count;
  PieceBatch batch;
  batch.row = static_cast<int64_t>(blocks.first) * 2 * plan.unit_heads;
  batch.heads = piece.heads.count;
#pragma unroll 1
  for (int first = 0; first < items; first += threads * kCombineItems) {
    batch.first_item = first;
    batch.items = items - first < threads * kCombineItems ? items - first : threads * kCombineItems;
    RowSum sums[kCombineItems];
    const auto item_of = [&](int i) { return static_cast<int>(threadIdx.x) + i * threads; };
    const auto row_of = [&](int i) {
      return static_cast<int>(
          plan.quarters.narrow_quotient(static_cast<uint32_t>(first + item_of(i))));
    };
#pragma unroll 1
    for (batch.begin = 0; batch.begin < blocks.count; batch.begin += plan.shared.combine_batch) {
      const int left = blocks.count - batch.begin;
      batch.count = left < plan.shared.combine_batch ? left : plan.shared.combine_batch;
      fetch_pieces(p, plan, batch, staged, barriers, round++);
#pragma unroll
      for (int i = 0; i < kCombineItems; ++i) {
        if (item_of(i) < batch.items) add_pieces(batch, staged, item_of(i), row_of(i), sums[i]);
      }
      compute_sync(plan);
    }
#pragma unroll
    for (int i = 0; i < kCombineItems; ++i) {
      if (item_of(i) >= batch.items) continue;
      finish_row(p, piece, row_of(i), (first + item_of(i)) * 4 - row_of(i) * dims, sums[i]);
    }
  }
}

// Everything that the block has written before is seen by who sees the sum, and the other way
// round.
static __device__ __forceinline__ uint64_t add_acq_rel(uint64_t* word, uint64_t value) {
  uint64_t before = 0;
#if defined(__CUDA_ARCH__)
  asm volatile("atom.add.acq_rel.gpu.global.u64 %0, [%1], %2;\n"
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
  uint64_t before = add_acq_rel(word, 1);
  if (before >> kArrivalBits != call >> kArrivalBits) {
    auto* const at = reinterpret_cast<unsigned long long*>(word);
    unsigned long long seen = before + 1;
    for (;;) {
      before = seen >> kArrivalBits == call >> kArrivalBits ? seen : call;
      const unsigned long long found = atomicCAS(at, seen, before + 1);
      if (found == seen) break;
      seen = found;
    }
    __threadfence();
  }
  if (before - call + 1 != static_cast<uint64_t>(blocks)) return false;
  *word = call;
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
    UnitBlocks blocks;
  };
  Unit units[2];
  int32_t count;
};
static_assert(sizeof(Combines) <= kCombinesBytes);

static __device__ __forceinline__ Combines& block_combines(const AttentionPlan& plan,
                                                           char* shared) {
  return *reinterpret_cast<Combines*>(shared + plan.shared.combines);
}

// By one thread, after the block has left its piece in the workspace: notes the unit if the block
// is the last to do so. The block's barriers around pass on what the thread's addition orders.
static __device__ __forceinline__ void arrive(const AttentionPlan& plan, const UnitBlocks& blocks,
                                              const Piece& piece, char* shared) {
  if (!is_last_arrival(plan.workspace.arrivals + blocks.first, plan.call, blocks.count)) return;
  Combines& combines = block_combines(plan, shared);
  combines.units[combines.count] = {piece, blocks};
  ++combines.count;
}

// At the end of the walk.
static __device__ __forceinline__ void combine_units(const PagedAttentionParams& p,
                                                     const AttentionPlan& plan, char* shared) {
  fence_shared_bulk();
  compute_sync(plan);
  const Combines& combines = block_combines(plan, shared);
  uint32_t round = 0;
#pragma unroll 1
  for (int i = 0; i < combines.count; ++i) {
    const Combines::Unit unit = combines.units[i];
    combine_pieces(p, plan, unit.piece, unit.blocks, shared, round);
  }
}

}  // namespace kvops::kernels
