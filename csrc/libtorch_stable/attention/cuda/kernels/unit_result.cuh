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
  int32_t slot;  // of the block's two in the workspace
  UnitHeads heads;
  bool is_whole;
};

// The sum of exp2(logit - max) * value over some tokens, for four dimensions of a head.
struct RowSum {
  float max = kNoLogit;
  float sum = 0.0f;
  float4 values = {};

  // Before others are added: the largest maximum of them and this. Finding it first makes all
  // their weights independent of each other.
  __device__ __forceinline__ void raise(float new_max) {
    const float factor = power_of_2(max - new_max);
    max = new_max;
    sum *= factor;
    values = {values.x * factor, values.y * factor, values.z * factor, values.w * factor};
  }

  __device__ __forceinline__ void add(const float2& state, const float4& other) {
    const float weight = power_of_2(state.x - max);
    sum += state.y * weight;
    values.x += other.x * weight;
    values.y += other.y * weight;
    values.z += other.z * weight;
    values.w += other.w * weight;
  }
};

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

// Rows of so few partitions are written by a lane each, longer ones by all lanes.
inline constexpr int32_t kFewPartitions = 8;

// The other partitions of a sequence get what adds nothing. Entries of partitions past its end keep
// their bytes. By one warp of each block, for its share of all rows (query heads of a sequence).
static __device__ __forceinline__ void neutral_sums(const PagedAttentionParams& p) {
  const auto lane = static_cast<int>(threadIdx.x % 32);
  const int64_t rows = p.num_seqs * p.num_heads;
#pragma unroll 1
  for (int64_t first = blockIdx.x; first < rows; first += gridDim.x * 32) {
    const int64_t own = first + lane * gridDim.x;
    const int64_t tokens = own < rows ? sequence_tokens(p, divide(own, p.num_heads)) : 0;
    const auto partitions = static_cast<int32_t>((tokens - 1) / kPartitionTokens + 1);
    const auto write = [&](int64_t row, int32_t begin, int32_t end, int32_t step) {
      const int64_t to = row * p.scratch_partitions;
#pragma unroll 1
      for (int32_t i = begin; i < end; i += step) {
        p.max_logits[to + i] = -INFINITY;
        p.exp_sums[to + i] = 0.0f;
      }
    };
    if (!__any_sync(~0u, partitions > kFewPartitions)) {
      write(own, 1, partitions, 1);
      continue;
    }
#pragma unroll 1
    for (uint32_t left = __ballot_sync(~0u, partitions > 1); left != 0; left &= left - 1) {
      const int source = __ffs(static_cast<int>(left)) - 1;
      write(first + source * gridDim.x, 1 + lane, __shfl_sync(~0u, partitions, source), 32);
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

// What the warps know of a unit's rows before it is added up, some rows at a time.
class WarpRows {
 public:
  __device__ __forceinline__ WarpRows(const PagedAttentionParams& p, const AttentionPlan& plan,
                                      char* shared)
      : values_(reinterpret_cast<float*>(shared + plan.shared.merge_values)),
        states_(reinterpret_cast<float2*>(shared + plan.shared.merge_states)),
        warp_values_(plan.shared.merge_rows * static_cast<int>(p.head_size)),
        warp_states_(plan.unit_heads) {}

  // [merge_rows][head_size]
  __device__ __forceinline__ float* values(int warp) const { return values_ + warp * warp_values_; }

  // Of all rows of the unit: reference and sum.
  __device__ __forceinline__ float2* states(int warp) const {
    return states_ + warp * warp_states_;
  }

  // Where a dimension of a row lies: such that lanes that have eight dimensions of four pairs of
  // rows store them to different banks.
  static __device__ __forceinline__ int at(int row, int dim, int dims) {
    return row * dims + (dims % 32 == 0 ? dim ^ row / 2 % 4 * 8 : dim);
  }

 private:
  float* values_;
  float2* states_;
  int warp_values_;
  int warp_states_;
};

// Rows [first_row, first_row + rows) of all warps, added up: to the output, or to the workspace.
static __device__ __forceinline__ void merge_warps(const PagedAttentionParams& p,
                                                   const AttentionPlan& plan, const Piece& piece,
                                                   int first_row, int rows,
                                                   const WarpRows& of_warps) {
  const auto dims = static_cast<int>(p.head_size);
  const int items = dims / 4 * rows;
#pragma unroll 1
  for (int item = static_cast<int>(threadIdx.x); item < items; item += plan.warps * 32) {
    const auto row = static_cast<int>(plan.quarters.narrow_quotient(static_cast<uint32_t>(item)));
    const int dim = item * 4 - row * dims;
    RowSum sum;
#pragma unroll 4
    for (int warp = 0; warp < plan.warps; ++warp) {
      sum.max = fmaxf(sum.max, of_warps.states(warp)[first_row + row].x);
    }
#pragma unroll 4
    for (int warp = 0; warp < plan.warps; ++warp) {
      sum.add(
          of_warps.states(warp)[first_row + row],
          *reinterpret_cast<const float4*>(of_warps.values(warp) + WarpRows::at(row, dim, dims)));
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
}

}  // namespace kvops::kernels
