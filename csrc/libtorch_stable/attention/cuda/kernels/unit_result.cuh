// From what each warp knows about a unit to the output, or to the workspace where several blocks
// share the unit (combine_units.cuh). Used by the kernel at the end of a unit, by all warps of a
// block that compute. Logits are in units of log2 e; results are relative to a reference that is
// never NaN: about the maximum.
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

static_assert(sizeof(RowSum) <= kRowSumBytes);

// Elements one by one where the address does not allow more.
template <class T>
static __device__ __forceinline__ void store_row(T* to, const float4& values) {
  const T first = narrow_as(values.x, T{});
  const T second = narrow_as(values.y, T{});
  const T third = narrow_as(values.z, T{});
  const T fourth = narrow_as(values.w, T{});
  if (reinterpret_cast<uintptr_t>(to) % sizeof(Vec<T, 4>) == 0) {
    store_vec(to, Vec<T, 4>{first, second, third, fourth});
    return;
  }
  to[0] = first;
  to[1] = second;
  to[2] = third;
  to[3] = fourth;
}

// Never a function that is called: parameters would come from memory there, not from constants.
static __device__ __forceinline__ void store_out(const PagedAttentionParams& p, int64_t seq,
                                                 int64_t head, int64_t dim, const float4& values) {
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
static __device__ __forceinline__ void record_sums(const PagedAttentionParams& p, int64_t seq,
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
#pragma unroll 4
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
