// The CPU kernels of attention, one table per SIMD level. No torch in here.
// Called by attention/cpu/*.cpp from inside parallel_for: they neither throw nor allocate.
// Everything is computed in fp32, whatever the dtypes; results do not depend on the SIMD level's
// name but may differ between levels by rounding.
#pragma once

#include <cstdint>

#include "attention/params.h"
#include "common/isa.h"

namespace kvops::cpu {

// The unit of work within a partition is a KV head with at most this many of its query heads.
inline constexpr int64_t kMaxUnitHeads = 8;

struct HeadUnits {
  int64_t per_kv_head;
  int64_t heads;  // query heads of a unit; the last one of a KV head may have fewer
};

// Softmax attention of one sequence over one partition alone, for some of its head units.
struct PartitionTask {
  int64_t seq;
  int64_t seq_len;  // clamped
  int64_t partition;
  HeadUnits units;
  int64_t unit_begin;
  int64_t unit_end;
  float* max_logits;       // [num_heads], written
  float* exp_sums;         // [num_heads], written: sum of exp(logit - max_logit)
  float* weighted_values;  // [num_heads, head_size], written: sum of exp(logit - max_logit) * v
};

// The result of one row (sequence, head) from its partitions.
struct CombineTask {
  int64_t seq;
  int64_t head;
  int64_t partitions;
  const float* max_logits;       // of the row's first partition; the next is num_heads further
  const float* exp_sums;         // likewise
  const float* weighted_values;  // likewise, num_heads * head_size further
};

struct PagedAttentionKernels {
  void (*attend_partition)(const PagedAttentionParams& params, const PartitionTask& task);
  void (*combine_partitions)(const PagedAttentionParams& params, const CombineTask& task);
};

struct MergeAttnStatesKernels {
  // Rows [begin, end) of tokens x heads, heads innermost.
  void (*merge_rows)(const MergeAttnStatesParams& params, int64_t begin, int64_t end);
};

}  // namespace kvops::cpu

KVOPS_DECLARE_KERNELS(PagedAttentionKernels, paged_attention_kernels)
KVOPS_DECLARE_KERNELS(MergeAttnStatesKernels, merge_attn_states_kernels)
