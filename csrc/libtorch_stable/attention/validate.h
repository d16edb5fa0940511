// Checks the arguments of the attention operators and fills their parameter structs.
// Called first by the CPU and the CUDA operator alike; throws before anything is written.
// What only the values of index tensors can tell is left to the kernels (clamped, masked) or
// checked mode.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "attention/params.h"
#include "common/tensor.h"

namespace kvops {

// The arguments that both versions of paged attention share.
struct PagedAttentionArgs {
  const char* op;
  const Tensor& out;
  const Tensor& query;
  const Tensor& key_cache;
  const Tensor& value_cache;
  int64_t num_kv_heads;
  double scale;
  const Tensor& block_tables;
  const Tensor& seq_lens;
  int64_t block_size;
  int64_t max_seq_len;
  const OptionalTensor& alibi_slopes;
  const std::string& kv_cache_dtype;
  const Tensor& k_scale;
  const Tensor& v_scale;
  int64_t tp_rank;
  int64_t blocksparse_local_blocks;
  int64_t blocksparse_vert_stride;
  int64_t blocksparse_block_size;
  int64_t blocksparse_head_sliding_step;
};

// The scratch tensors of version 2.
struct PartitionScratch {
  const Tensor& exp_sums;
  const Tensor& max_logits;
  const Tensor& tmp_out;
};

// Computes p.out, and where p.exp_sums is set also what version 2's scratch is to hold. Device and
// stream are those of `query`.
using ComputePagedAttention = void(const char* op, const PagedAttentionParams& p,
                                   const Tensor& query);

PagedAttentionParams validate_paged_attention_v1(const PagedAttentionArgs& args);
PagedAttentionParams validate_paged_attention_v2(const PagedAttentionArgs& args,
                                                 const PartitionScratch& scratch);

// In checked mode: raises if a length, or a table entry that some head reads, is out of range.
// p.seq_lens and p.block_tables must be in host memory.
void check_paged_attention_indices(const char* op, const PagedAttentionParams& p);

MergeAttnStatesParams validate_merge_attn_states(
    const Tensor& output, const OptionalTensor& output_lse, const Tensor& prefix_output,
    const Tensor& prefix_lse, const Tensor& suffix_output, const Tensor& suffix_lse,
    const std::optional<int64_t>& prefill_tokens_with_context, const OptionalTensor& output_scale);

}  // namespace kvops
