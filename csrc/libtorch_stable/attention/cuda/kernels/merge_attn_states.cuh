// Merges attention over two parts of a context, row (token, head) by row.
// Launched by cuda::merge_attn_states only. A group of lanes takes a row, a lane two units of it at
// once. Outputs may be the memory of the prefix's or the suffix's: every element, and every lse, is
// read by the lanes of its row, in one warp, before it is written.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "attention/params.h"
#include "common/cuda/convert.cuh"
#include "common/cuda/divisor.cuh"
#include "common/cuda/launch.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

inline constexpr int kMergeThreads = 128;
inline constexpr int kMergeBlocks = 8;  // that a multiprocessor has room for
inline constexpr int kUnitsAtOnce = 2;

// How a row comes about: from both parts by weight, or from one of them as it is.
enum class MergeMode : uint8_t { kWeighted, kPrefix, kSuffix };

struct MergeWeights {
  MergeMode mode;
  float prefix;
  float suffix;
  float lse;
};

__device__ __forceinline__ MergeWeights weigh(float prefix_lse, float suffix_lse) {
  // An infinite lse of either sign means "no token".
  const float prefix = prefix_lse == INFINITY ? -INFINITY : prefix_lse;
  const float suffix = suffix_lse == INFINITY ? -INFINITY : suffix_lse;
  // NaN is larger than everything here, so that it reaches the results.
  const float largest = prefix > suffix || prefix != prefix ? prefix : suffix;
  if (largest == -INFINITY) return {MergeMode::kPrefix, 1.0f, 0.0f, -INFINITY};
  const float prefix_sum = expf(prefix - largest);
  const float suffix_sum = expf(suffix - largest);
  const float sum = prefix_sum + suffix_sum;
  return {MergeMode::kWeighted, prefix_sum / sum, suffix_sum / sum, logf(sum) + largest};
}

// Of a tile: the lse of its tokens, for a head, lie in one sector of 32 bytes.
inline constexpr int kMostLog2Tokens = 3;

// Rows are numbered tile by tile, in a tile head by head.
struct MergeShape {
  Divisor tile_rows;
  int64_t rows;     // with those of the tokens that the last tile lacks
  int log2_tokens;  // of a tile
  int log2_lanes;   // of a group: at most a warp
};

// What a lane has read of a row.
template <class T, int kCount>
struct RowShare {
  Packed<T, kCount> prefix;
  Packed<T, kCount> suffix;
};

// factor: 1 / output_scale for e4m3 outputs, else not looked at.
template <class T, class Out, int kCount>
__device__ __forceinline__ Vec<Out, kCount> merge_share(const MergeWeights& weights,
                                                        const RowShare<T, kCount>& share,
                                                        float factor) {
  const auto prefix = __builtin_bit_cast(Vec<T, kCount>, share.prefix);
  const auto suffix = __builtin_bit_cast(Vec<T, kCount>, share.suffix);
  float merged[kCount];
  if (weights.mode == MergeMode::kWeighted) {
    // The suffix's product is rounded, the prefix's is fused with the addition.
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      merged[i] = __fmaf_rn(widen(prefix.elems[i]), weights.prefix,
                            __fmul_rn(widen(suffix.elems[i]), weights.suffix));
    }
  } else {
    const bool is_prefix = weights.mode == MergeMode::kPrefix;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      merged[i] = is_prefix ? widen(prefix.elems[i]) : widen(suffix.elems[i]);
    }
  }
  Vec<Out, kCount> out;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const bool is_scaled = sizeof(Out) == 1;
    out.elems[i] = narrow_as(is_scaled ? __fmul_rn(merged[i], factor) : merged[i], Out{});
  }
  return out;
}

struct RowIndex {
  int64_t token;
  int64_t head;
};

__device__ __forceinline__ RowIndex index_of(const MergeShape& shape, int64_t row) {
  const int64_t tile = shape.tile_rows.quotient(row);
  const int64_t in_tile = shape.tile_rows.remainder(row, tile);
  const int64_t first_token = tile << shape.log2_tokens;
  return {first_token + (in_tile & ((1 << shape.log2_tokens) - 1)), in_tile >> shape.log2_tokens};
}

// Where a row's data are, and what its parts weigh before they are weighed.
template <class T, class Out>
struct MergeRow {
  const T* prefix;
  const T* suffix;
  Out* output;
  bool has_prefix;
  float prefix_lse;
  float suffix_lse;
};

template <class T, class Out>
__device__ __forceinline__ MergeRow<T, Out> locate_row(const MergeAttnStatesParams& p,
                                                       RowIndex row) {
  MergeRow<T, Out> out = {};
  out.suffix = static_cast<const T*>(p.suffix_output) + row.token * p.suffix_token_stride +
               row.head * p.suffix_head_stride;
  out.output = static_cast<Out*>(p.output) + row.token * p.output_token_stride +
               row.head * p.output_head_stride;
  out.suffix_lse =
      p.suffix_lse[row.head * p.suffix_lse_head_stride + row.token * p.suffix_lse_token_stride];
  out.has_prefix = row.token < p.tokens_with_prefix;
  if (out.has_prefix) {
    out.prefix = static_cast<const T*>(p.prefix_output) + row.token * p.prefix_token_stride +
                 row.head * p.prefix_head_stride;
    out.prefix_lse =
        p.prefix_lse[row.head * p.prefix_lse_head_stride + row.token * p.prefix_lse_token_stride];
  }
  return out;
}

template <int kCount, class T, class Out>
__device__ __forceinline__ RowShare<T, kCount> load_share(const MergeRow<T, Out>& row,
                                                          int64_t elem) {
  RowShare<T, kCount> share = {};
  share.suffix = load_packed<kCount>(row.suffix + elem);
  if (row.has_prefix) share.prefix = load_packed<kCount>(row.prefix + elem);
  return share;
}

template <class T, class Out, int kCount>
__global__ void __launch_bounds__(kMergeThreads, kMergeBlocks)
    merge_attn_states_kernel(const __grid_constant__ MergeAttnStatesParams p,
                             const __grid_constant__ MergeShape shape) {
  const float scale = p.output_scale != nullptr ? *p.output_scale : 1.0f;
  const int lanes = 1 << shape.log2_lanes;
  const int lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int64_t groups = kMergeThreads >> shape.log2_lanes;
  const int64_t group = threadIdx.x >> shape.log2_lanes;
  const int64_t lanes_elems = static_cast<int64_t>(lanes) * kCount;
  // The same for all threads of a block, so that whole warps meet below.
  for (int64_t base = blockIdx.x * groups; base < shape.rows; base += gridDim.x * groups) {
    // Groups without a row read one of another once more.
    RowIndex index = index_of(shape, base + group < shape.rows ? base + group : 0);
    const bool has_row = base + group < shape.rows && index.token < p.num_tokens;
    if (!has_row) index.token = p.num_tokens - 1;
    const auto row = locate_row<T, Out>(p, index);
    RowShare<T, kCount> shares[kUnitsAtOnce] = {};
    const auto load = [&](int64_t first_elem) {
#pragma unroll
      for (int j = 0; j < kUnitsAtOnce; ++j) {
        const int64_t elem = first_elem + j * lanes_elems;
        if (elem < p.head_size) shares[j] = load_share<kCount>(row, elem);
      }
    };
    int64_t first_elem = static_cast<int64_t>(lane) * kCount;
    load(first_elem);
    // Every lane has the lse of its row before one of them writes it.
    __syncwarp();
    if (!has_row) continue;
    MergeWeights weights = {MergeMode::kSuffix, 0.0f, 1.0f, row.suffix_lse};
    if (row.has_prefix) weights = weigh(row.prefix_lse, row.suffix_lse);
    const float factor = __fdiv_rn(1.0f, scale);
    while (true) {
#pragma unroll
      for (int j = 0; j < kUnitsAtOnce; ++j) {
        const int64_t elem = first_elem + j * lanes_elems;
        if (elem >= p.head_size) continue;
        store_vec(row.output + elem, merge_share<T, Out, kCount>(weights, shares[j], factor));
      }
      first_elem += kUnitsAtOnce * lanes_elems;
      if (first_elem >= p.head_size) break;
      load(first_elem);
    }
    if (lane == 0 && p.output_lse != nullptr) {
      p.output_lse[index.head * p.output_lse_head_stride +
                   index.token * p.output_lse_token_stride] = weights.lse;
    }
  }
}

// Of the smallest power of two that is not less than `wanted`, at most a warp.
inline int log2_lanes_for(int64_t wanted) {
  int log2 = 0;
  while ((1 << log2) < wanted && (1 << log2) < 32) ++log2;
  return log2;
}

template <class T, class Out, int kCount>
cudaError_t launch_merge_rows(const MergeAttnStatesParams& p, cudaStream_t stream) {
  int log2_tokens = 0;
  while (log2_tokens < kMostLog2Tokens && 2 << log2_tokens <= p.num_tokens) ++log2_tokens;
  const int64_t tile_rows = p.num_heads << log2_tokens;
  const int64_t rows = (((p.num_tokens - 1) >> log2_tokens) + 1) * tile_rows;
  const int log2_lanes = log2_lanes_for((p.head_size / kCount + kUnitsAtOnce - 1) / kUnitsAtOnce);
  const int64_t block_rows = kMergeThreads >> log2_lanes;
  const int64_t wanted = (rows + block_rows - 1) / block_rows;
  const unsigned blocks = static_cast<unsigned>(wanted < INT32_MAX ? wanted : INT32_MAX);
  const MergeShape shape = {.tile_rows = Divisor(tile_rows, rows),
                            .rows = rows,
                            .log2_tokens = log2_tokens,
                            .log2_lanes = log2_lanes};
  return launch_kernel(merge_attn_states_kernel<T, Out, kCount>, blocks, kMergeThreads, stream, p,
                       shape);
}

template <class T, class Out>
cudaError_t launch_merge_to(const MergeAttnStatesParams& p, cudaStream_t stream) {
  constexpr int kCount = 16 / sizeof(T);
  const auto address = [](const void* pointer) { return reinterpret_cast<uint64_t>(pointer); };
  const uint64_t in_bits =
      address(p.prefix_output) | address(p.suffix_output) |
      static_cast<uint64_t>(static_cast<int64_t>(sizeof(T)) *
                            (p.head_size | p.prefix_token_stride | p.prefix_head_stride |
                             p.suffix_token_stride | p.suffix_head_stride));
  const uint64_t out_bits =
      address(p.output) | static_cast<uint64_t>(static_cast<int64_t>(sizeof(Out)) *
                                                (p.output_token_stride | p.output_head_stride));
  const bool is_wide = in_bits % 16 == 0 && out_bits % (kCount * sizeof(Out)) == 0;
  return is_wide ? launch_merge_rows<T, Out, kCount>(p, stream)
                 : launch_merge_rows<T, Out, 1>(p, stream);
}

template <class T>
cudaError_t launch_merge_from(const MergeAttnStatesParams& p, cudaStream_t stream) {
  return p.output_scale != nullptr ? launch_merge_to<T, e4m3_t>(p, stream)
                                   : launch_merge_to<T, T>(p, stream);
}

// Kernels: 3 dtypes, each with output of that dtype or of e4m3, in 2 widths = 12.
inline cudaError_t launch_merge_attn_states(const MergeAttnStatesParams& p, cudaStream_t stream) {
  if (p.num_tokens * p.num_heads == 0) return cudaSuccess;
  switch (p.dtype) {
    case DType::kHalf:
      return launch_merge_from<half_t>(p, stream);
    case DType::kBFloat16:
      return launch_merge_from<bfloat16_t>(p, stream);
    default:
      return launch_merge_from<float>(p, stream);
  }
}

}  // namespace kvops::kernels
