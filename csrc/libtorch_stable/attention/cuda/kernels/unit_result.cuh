// From what each warp knows about a unit to the output: added up over warps, and over blocks where
// several share a unit (the last of them to finish does that, in the order of the tokens). Used by
// the kernel at the end of a unit, by all warps of a block that compute. Logits are in units of
// log2 e; results are relative to a reference that is never NaN: about the maximum.
#pragma once

#include <cstdint>

#include "attention/block_sparse.h"
#include "attention/cuda/kernels/plan.h"
#include "attention/cuda/kernels/stage.cuh"
#include "attention/cuda/kernels/stage_barriers.cuh"
#include "attention/cuda/kernels/work_split.cuh"
#include "common/cuda/convert.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

inline constexpr float kNoLogit = -3.40282347e+38f;  // -FLT_MAX: the reference of nothing
inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kLn2 = 0.693147181f;

// A unit of one sequence, or the part of it that a block has.
struct Piece {
  int64_t seq;
  int64_t seq_len;
  int64_t first_tile;  // of the unit, in TileRange
  int64_t end_tile;
  int32_t slot;  // of the block's two in the workspace
  UnitHeads heads;
  bool is_whole;
};

// The sum of exp2(logit - max) * value over some tokens, for four dimensions of a head.
struct RowSum {
  float max = kNoLogit;
  float sum = 0.0f;
  float4 values = {};

  __device__ __forceinline__ void add(float other_max, float other_sum, const float4& other) {
    const float new_max = other_max > max ? other_max : max;
    const float mine = power_of_2(max - new_max);
    const float theirs = power_of_2(other_max - new_max);
    max = new_max;
    sum = sum * mine + other_sum * theirs;
    values.x = values.x * mine + other.x * theirs;
    values.y = values.y * mine + other.y * theirs;
    values.z = values.z * mine + other.z * theirs;
    values.w = values.w * mine + other.w * theirs;
  }
};

template <class T>
static __device__ __forceinline__ void store_row(T* to, const float4& values) {
  const Vec<T, 4> row = {narrow_as(values.x, T{}), narrow_as(values.y, T{}),
                         narrow_as(values.z, T{}), narrow_as(values.w, T{})};
  if (reinterpret_cast<uintptr_t>(to) % sizeof(row) == 0) {
    store_vec(to, row);
    return;
  }
#pragma unroll 1
  for (int i = 0; i < 4; ++i) to[i] = row.elems[i];
}

// Code that a call runs through once is not in any cache yet: there is to be one copy of it.
static __device__ __noinline__ void store_out(const PagedAttentionParams& p, int64_t seq,
                                              int64_t head, int64_t dim, float4 values) {
  const int64_t to = seq * p.out_seq_stride + head * p.out_head_stride + dim;
  switch (p.query_dtype) {
    case DType::kHalf:
      return store_row(static_cast<half_t*>(p.out) + to, values);
    case DType::kBFloat16:
      return store_row(static_cast<bfloat16_t*>(p.out) + to, values);
    default:
      return store_row(static_cast<float*>(p.out) + to, values);
  }
}

// Tokens that block sparsity hides from a head. Only asked for where a head sees nothing.
static __device__ __noinline__ int64_t hidden_tokens(const PagedAttentionParams& p, int64_t seq,
                                                     int64_t seq_len, int64_t head) {
  const int32_t* table = p.block_tables + seq * p.table_seq_stride;
  const int64_t shift = sparse_shift(p, head);
  int64_t count = 0;
  for (int64_t start = 0; start < seq_len; start += p.block_size) {
    const int64_t block = table[start / p.block_size];
    if (block < 0 || block >= p.num_blocks) continue;
    if (sparse_sees(p.sparse, shift, start, seq_len)) continue;
    count += seq_len - start < p.block_size ? seq_len - start : p.block_size;
  }
  return count;
}

// Version 2's scratch: all of a row's mass is in its first partition. See neutral_sums().
static __device__ __noinline__ void record_sums(const PagedAttentionParams& p, int64_t seq,
                                                int64_t seq_len, int64_t head, float max,
                                                float sum) {
  const int64_t to = (seq * p.num_heads + head) * p.scratch_partitions;
  if (max == kNoLogit && p.sparse.active) {
    sum += static_cast<float>(hidden_tokens(p, seq, seq_len, head));
  }
  p.max_logits[to] = max == kNoLogit ? kNoLogit : max * kLn2;
  p.exp_sums[to] = sum;
}

// The other partitions of a sequence get what adds nothing, from one warp. Entries of partitions
// past its end keep their bytes.
static __device__ __forceinline__ void neutral_sums(const PagedAttentionParams& p, int64_t seq,
                                                    int64_t seq_len) {
#pragma unroll 1
  for (int64_t head = threadIdx.x % 32; head < p.num_heads; head += 32) {
    const int64_t to = (seq * p.num_heads + head) * p.scratch_partitions;
#pragma unroll 1
    for (int64_t i = 1; i * kPartitionTokens < seq_len; ++i) {
      p.max_logits[to + i] = -INFINITY;
      p.exp_sums[to + i] = 0.0f;
    }
  }
}

// Four dimensions of a row that is complete.
static __device__ __forceinline__ void finish_row(const PagedAttentionParams& p, const Piece& piece,
                                                  int32_t row, int64_t dim, RowSum& sum) {
  const int64_t head = piece.heads.first + row;
  // vLLM's 1e-6: it makes the result of no token 0.
  const float factor =
      __fdiv_rn(p.v_scale != nullptr ? *p.v_scale : 1.0f, __fadd_rn(sum.sum, 1e-6f));
  const float4 values = {sum.values.x * factor, sum.values.y * factor, sum.values.z * factor,
                         sum.values.w * factor};
  store_out(p, piece.seq, head, dim, values);
  if (dim == 0 && p.exp_sums != nullptr) {
    record_sums(p, piece.seq, piece.seq_len, head, sum.max, sum.sum);
  }
}

// Adds up what all blocks have left of a unit, kBatch loads under way at a time. Order and grouping
// are fixed: equal bytes each time.
template <int kBatch>
static __device__ __forceinline__ void combine_pieces(const PagedAttentionParams& p,
                                                      const AttentionPlan& plan, const Piece& piece,
                                                      int32_t first_block, int32_t blocks) {
  const int items = static_cast<int>(p.head_size / 4) * piece.heads.count;
  const int rows_of_block = 2 * plan.unit_heads;
#pragma unroll 1
  for (int item = static_cast<int>(threadIdx.x); item < items; item += plan.warps * 32) {
    const auto row = static_cast<int>(plan.quarters.narrow_quotient(static_cast<uint32_t>(item)));
    const int dim = item * 4 - row * static_cast<int>(p.head_size);
    // The first block has the unit's first tile in its second slot, the others begin with it.
    const int64_t second_slot = static_cast<int64_t>(first_block) * rows_of_block + row;
    RowSum sum;
#pragma unroll 1
    for (int32_t i = 0; i < blocks; i += kBatch) {
      float2 states[kBatch];
      float4 values[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int32_t block = i + j < blocks ? i + j : blocks - 1;
        const int64_t at = second_slot + block * rows_of_block + (block == 0 ? plan.unit_heads : 0);
        states[j] = __ldcg(plan.workspace.states + at);
        values[j] =
            __ldcg(reinterpret_cast<const float4*>(plan.workspace.values + at * p.head_size + dim));
        // The last one again is nothing.
        if (i + j >= blocks) states[j] = {kNoLogit, 0.0f};
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) sum.add(states[j].x, states[j].y, values[j]);
    }
    finish_row(p, piece, row, dim, sum);
  }
}

// Counts the blocks of a unit that have left their pieces; true for the last one. The word may hold
// anything at first: a count belongs to this call only if it carries the call's number. What was
// counted without it counts again. The last one leaves a count of 0, for a graph that is replayed:
// its calls keep their numbers.
static __device__ __forceinline__ bool is_last_arrival(uint64_t* word, uint64_t call,
                                                       int32_t blocks) {
  auto* const at = reinterpret_cast<unsigned long long*>(word);
  auto before = static_cast<uint64_t>(atomicAdd(at, 1ull));
  if (before >> kArrivalBits != call >> kArrivalBits) {
    unsigned long long seen = before + 1;
    for (;;) {
      before = seen >> kArrivalBits == call >> kArrivalBits ? seen : call;
      const unsigned long long found = atomicCAS(at, seen, before + 1);
      if (found == seen) break;
      seen = found;
    }
  }
  if (before - call + 1 != static_cast<uint64_t>(blocks)) return false;
  __stcg(at, static_cast<unsigned long long>(call));
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
  __threadfence();
  if (is_last_arrival(plan.workspace.arrivals + first_block, plan.call, blocks)) {
    Combines& combines = block_combines(plan, shared);
    combines.units[combines.count] = {piece, first_block, blocks};
    ++combines.count;
  }
  __threadfence();
}

// At the end of the walk.
template <int kBatch>
static __device__ __forceinline__ void combine_units(const PagedAttentionParams& p,
                                                     const AttentionPlan& plan, char* shared) {
  compute_sync(plan);
  const Combines& combines = block_combines(plan, shared);
  for (int i = 0; i < combines.count; ++i) {
    const Combines::Unit unit = combines.units[i];
    combine_pieces<kBatch>(p, plan, unit.piece, unit.first_block, unit.blocks);
  }
}

// `merge` is [warps][merge_rows][merge_pitch].
static __device__ __forceinline__ int merge_rows(const AttentionPlan& plan) {
  return plan.unit_heads < kMergeRows ? plan.unit_heads : kMergeRows;
}
static __device__ __forceinline__ int merge_pitch(const PagedAttentionParams& p) {
  return static_cast<int>(p.head_size) + kMergePad;
}

// Rows of all warps in `merge`, with their states, added up. First and last thing is a
// barrier: `merge` is filled before and may be filled again after.
static __device__ __forceinline__ void merge_warps(const PagedAttentionParams& p,
                                                   const AttentionPlan& plan, const Piece& piece,
                                                   int first_row, int rows, const float* merge,
                                                   const float2* states) {
  const int items = static_cast<int>(p.head_size / 4) * rows;
  compute_sync(plan);
#pragma unroll 1
  for (int item = static_cast<int>(threadIdx.x); item < items; item += plan.warps * 32) {
    const auto row = static_cast<int>(plan.quarters.narrow_quotient(static_cast<uint32_t>(item)));
    const int dim = item * 4 - row * static_cast<int>(p.head_size);
    RowSum sum;
#pragma unroll 1
    for (int warp = 0; warp < plan.warps; ++warp) {
      const float2 state = states[warp * plan.unit_heads + first_row + row];
      const float4 values = *reinterpret_cast<const float4*>(
          merge + (warp * merge_rows(plan) + row) * merge_pitch(p) + dim);
      sum.add(state.x, state.y, values);
    }
    if (piece.is_whole) {
      finish_row(p, piece, first_row + row, dim, sum);
    } else {
      const int64_t at =
          (blockIdx.x * 2 + piece.slot) * static_cast<int64_t>(plan.unit_heads) + first_row + row;
      *reinterpret_cast<float4*>(plan.workspace.values + at * p.head_size + dim) = sum.values;
      if (dim == 0) plan.workspace.states[at] = {sum.max, sum.sum};
    }
  }
  compute_sync(plan);
}

}  // namespace kvops::kernels
