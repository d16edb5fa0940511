// The typed operators of this capability, for registration: one signature, CPU and CUDA.
// Semantics and errors: docstrings in kvops/attention.py.
// Declared through function types, so that no signature is written twice.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/tensor.h"

namespace kvops {

using PagedAttentionV1 = void(Tensor& out, const Tensor& query, const Tensor& key_cache,
                              const Tensor& value_cache, int64_t num_kv_heads, double scale,
                              const Tensor& block_tables, const Tensor& seq_lens,
                              int64_t block_size, int64_t max_seq_len,
                              const OptionalTensor& alibi_slopes, const std::string& kv_cache_dtype,
                              const Tensor& k_scale, const Tensor& v_scale, int64_t tp_rank,
                              int64_t blocksparse_local_blocks, int64_t blocksparse_vert_stride,
                              int64_t blocksparse_block_size,
                              int64_t blocksparse_head_sliding_step);

using PagedAttentionV2 = void(Tensor& out, Tensor& exp_sums, Tensor& max_logits, Tensor& tmp_out,
                              const Tensor& query, const Tensor& key_cache,
                              const Tensor& value_cache, int64_t num_kv_heads, double scale,
                              const Tensor& block_tables, const Tensor& seq_lens,
                              int64_t block_size, int64_t max_seq_len,
                              const OptionalTensor& alibi_slopes, const std::string& kv_cache_dtype,
                              const Tensor& k_scale, const Tensor& v_scale, int64_t tp_rank,
                              int64_t blocksparse_local_blocks, int64_t blocksparse_vert_stride,
                              int64_t blocksparse_block_size,
                              int64_t blocksparse_head_sliding_step);

using MergeAttnStates = void(Tensor& output, const OptionalTensor& output_lse,
                             const Tensor& prefix_output, const Tensor& prefix_lse,
                             const Tensor& suffix_output, const Tensor& suffix_lse,
                             const std::optional<int64_t>& prefill_tokens_with_context,
                             const OptionalTensor& output_scale);

namespace cpu {
PagedAttentionV1 paged_attention_v1;
PagedAttentionV2 paged_attention_v2;
MergeAttnStates merge_attn_states;
}  // namespace cpu

namespace cuda {
PagedAttentionV1 paged_attention_v1;
PagedAttentionV2 paged_attention_v2;
MergeAttnStates merge_attn_states;
}  // namespace cuda

}  // namespace kvops
