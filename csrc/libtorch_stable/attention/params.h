// Parameters of the attention kernels, CPU and CUDA alike: plain structs, filled by
// attention/validate. Strides are in elements; every pointer says its shape.
// Values of block_tables and seq_lens are not to be trusted: kernels clamp and skip (see below).
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace kvops {

// Tokens of one partition: the unit of work, and what v2's scratch tensors are indexed by.
inline constexpr int64_t kPartitionTokens = 512;

// Which blocks a head sees (spec 9.5). Inactive: all of them.
struct BlockSparse {
  bool active;
  int64_t tp_rank;
  int64_t local_blocks;       // newest pattern blocks, always seen
  int64_t vert_stride;        // every how many pattern blocks one is seen
  int64_t block_tokens;       // tokens of a pattern block
  int64_t head_sliding_step;  // shift from head to head; negative: from KV head to KV head
};

// paged_attention_v1 and _v2. A sequence has clamp(seq_lens[s], 0, max_tokens) tokens; tokens of
// a block outside [0, num_blocks) are left out.
struct PagedAttentionParams {
  void* out;                    // [num_seqs, num_heads, head_size], query_dtype
  const void* query;            // [num_seqs, num_heads, head_size], query_dtype
  const void* key_cache;        // [num_blocks, num_kv_heads, head_size / x, block_size, x]
  const void* value_cache;      // [num_blocks, num_kv_heads, head_size, block_size]
  const int32_t* block_tables;  // [num_seqs, max_blocks]
  const int32_t* seq_lens;      // [num_seqs]
  const float* alibi_slopes;    // [num_heads] or null
  const float* k_scale;         // [1], null for CacheKind::kAuto
  const float* v_scale;         // [1], null for CacheKind::kAuto
  float* exp_sums;              // [num_seqs, num_heads, scratch_partitions], null for v1
  float* max_logits;            // likewise
  void* tmp_out;                // [num_seqs, num_heads, scratch_partitions, head_size], likewise
  int64_t num_seqs;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_size;
  int64_t block_size;  // tokens
  int64_t num_blocks;
  int64_t max_blocks;  // of one sequence
  int64_t max_tokens;  // min(max_seq_len, max_blocks * block_size), at least 0
  int64_t scratch_partitions;
  int64_t x;  // elements of a key that lie together
  int64_t out_seq_stride;
  int64_t out_head_stride;
  int64_t query_seq_stride;
  int64_t query_head_stride;
  int64_t key_block_stride;
  int64_t key_head_stride;
  int64_t value_block_stride;
  int64_t value_head_stride;
  int64_t table_seq_stride;
  float scale;  // of the softmax
  DType query_dtype;
  CacheKind cache_kind;
  BlockSparse sparse;
};

struct MergeAttnStatesParams {
  void* output;               // [num_tokens, num_heads, head_size], dtype or e4m3 (output_scale)
  float* output_lse;          // [num_heads, num_tokens] or null
  const void* prefix_output;  // [>= tokens_with_prefix, num_heads, head_size], dtype
  const float* prefix_lse;    // [num_heads, >= tokens_with_prefix]
  const void* suffix_output;  // [num_tokens, num_heads, head_size], dtype
  const float* suffix_lse;    // [num_heads, num_tokens]
  const float* output_scale;  // [1] or null
  int64_t num_tokens;
  int64_t num_heads;
  int64_t head_size;
  int64_t tokens_with_prefix;  // the others take output and lse of the suffix as they are
  int64_t output_token_stride;
  int64_t output_head_stride;
  int64_t prefix_token_stride;
  int64_t prefix_head_stride;
  int64_t suffix_token_stride;
  int64_t suffix_head_stride;
  int64_t output_lse_head_stride;
  int64_t output_lse_token_stride;
  int64_t prefix_lse_head_stride;
  int64_t prefix_lse_token_stride;
  int64_t suffix_lse_head_stride;
  int64_t suffix_lse_token_stride;
  DType dtype;
};

}  // namespace kvops
