// Every operator: the namespace in which a peer has it, its name and its arguments.
// vLLM's are its 0.23 schemas, and the trailing arguments with defaults that vLLM 0.33 adds to
// them; SGLang's (sgl_kernel) those of its stable registration. Read by schemas.cpp (kvops::<op>),
// peer_names.cpp (names of peers) and the tests. All operators return nothing; `!` marks what they
// write.
#pragma once

namespace kvops {

struct OperatorSchema {
  const char* peer_namespace;
  const char* name;
  const char* arguments;
  // Where the peer's own letter differs; null if it does not.
  const char* peer_arguments = nullptr;
  // The peer's letter is the same, but does not mark what is written.
  bool peer_hides_writes = false;
};

inline constexpr OperatorSchema kOperators[] = {
    // ---- cache
    {"_C_cache_ops", "reshape_and_cache",
     "Tensor key, Tensor value, Tensor! key_cache, Tensor! value_cache, Tensor slot_mapping, "
     "str kv_cache_dtype, Tensor k_scale, Tensor v_scale, bool interleaved_v=False"},
    {"_C_cache_ops", "reshape_and_cache_flash",
     "Tensor key, Tensor value, Tensor! key_cache, Tensor! value_cache, Tensor slot_mapping, "
     "str kv_cache_dtype, Tensor k_scale, Tensor v_scale"},
    {"_C_cache_ops", "convert_fp8",
     "Tensor! dst_cache, Tensor src_cache, float scale, str kv_cache_dtype"},
    // ---- mla
    {"_C_cache_ops", "concat_and_cache_mla",
     "Tensor kv_c, Tensor k_pe, Tensor! kv_cache, Tensor slot_mapping, str kv_cache_dtype, "
     "Tensor scale, bool skip_scale=False"},
    {"_C_cache_ops", "concat_and_cache_mla_rope_fused",
     "Tensor positions, Tensor! q_pe, Tensor! k_pe, Tensor kv_c, Tensor cos_sin_cache, "
     "bool is_neox, Tensor slot_mapping, Tensor! kv_cache, str kv_cache_dtype, "
     "Tensor kv_cache_scale"},
    {"_C_cache_ops", "concat_mla_q", "Tensor ql_nope, Tensor q_pe, Tensor! q_out"},
    {"_C_cache_ops", "indexer_k_quant_and_cache",
     "Tensor k, Tensor! kv_cache, Tensor slot_mapping, int quant_block_size, "
     "str kv_cache_dtype"},
    // ---- gather
    {"_C_cache_ops", "gather_and_maybe_dequant_cache",
     "Tensor src_cache, Tensor! dst, Tensor block_table, Tensor cu_seq_lens, "
     "Tensor token_to_seq, int num_tokens, str kv_cache_dtype, Tensor scale, "
     "Tensor? seq_starts"},
    {"_C_cache_ops", "cp_gather_cache",
     "Tensor src_cache, Tensor! dst, Tensor block_table, Tensor cu_seq_lens, int batch_size, "
     "Tensor? seq_starts"},
    {"_C_cache_ops", "cp_gather_and_upconvert_fp8_kv_cache",
     "Tensor src_cache, Tensor! dst, Tensor block_table, Tensor seq_lens, "
     "Tensor workspace_starts, int batch_size"},
    {"_C_cache_ops", "cp_gather_indexer_k_quant_cache",
     "Tensor kv_cache, Tensor! dst_k, Tensor! dst_scale, Tensor block_table, "
     "Tensor cu_seq_lens"},
    // ---- attention
    {"_C", "paged_attention_v1",
     "Tensor! out, Tensor query, Tensor key_cache, Tensor value_cache, int num_kv_heads, "
     "float scale, Tensor block_tables, Tensor seq_lens, int block_size, int max_seq_len, "
     "Tensor? alibi_slopes, str kv_cache_dtype, Tensor k_scale, Tensor v_scale, int tp_rank, "
     "int blocksparse_local_blocks, int blocksparse_vert_stride, int blocksparse_block_size, "
     "int blocksparse_head_sliding_step"},
    {"_C", "paged_attention_v2",
     "Tensor! out, Tensor! exp_sums, Tensor! max_logits, Tensor! tmp_out, Tensor query, "
     "Tensor key_cache, Tensor value_cache, int num_kv_heads, float scale, "
     "Tensor block_tables, Tensor seq_lens, int block_size, int max_seq_len, "
     "Tensor? alibi_slopes, str kv_cache_dtype, Tensor k_scale, Tensor v_scale, int tp_rank, "
     "int blocksparse_local_blocks, int blocksparse_vert_stride, int blocksparse_block_size, "
     "int blocksparse_head_sliding_step"},
    // `int!?` is vLLM's letter; no torch can trace it, so kvops:: says `int?`.
    {"_C", "merge_attn_states",
     "Tensor! output, Tensor!? output_lse, Tensor prefix_output, Tensor prefix_lse, "
     "Tensor suffix_output, Tensor suffix_lse, int? prefill_tokens_with_context, "
     "Tensor? output_scale=None",
     "Tensor! output, Tensor!? output_lse, Tensor prefix_output, Tensor prefix_lse, "
     "Tensor suffix_output, Tensor suffix_lse, int!? prefill_tokens_with_context, "
     "Tensor? output_scale=None"},
    // ---- swap
    {"_C_cache_ops", "swap_blocks",
     "Tensor src, Tensor! dst, int block_size_in_bytes, Tensor block_mapping"},
    {"_C_cache_ops", "swap_blocks_batch",
     "Tensor src_ptrs, Tensor dst_ptrs, Tensor sizes, bool is_src_access_order_any=False"},
    // ---- transfer: one layer
    {"sgl_kernel", "transfer_kv_per_layer",
     "Tensor src_k, Tensor! dst_k, Tensor src_v, Tensor! dst_v, Tensor src_indices, "
     "Tensor dst_indices, int item_size, int block_quota, int num_warps_per_block",
     nullptr, true},
    {"sgl_kernel", "transfer_kv_per_layer_pf_lf",
     "Tensor src_k, Tensor! dst_k, Tensor src_v, Tensor! dst_v, Tensor src_indices, "
     "Tensor dst_indices, int layer_id, int item_size, int src_layout_dim, int block_quota, "
     "int num_warps_per_block",
     nullptr, true},
    {"sgl_kernel", "transfer_kv_per_layer_ph_lf",
     "Tensor src_k, Tensor! dst_k, Tensor src_v, Tensor! dst_v, Tensor src_indices, "
     "Tensor dst_indices, int layer_id, int item_size, int src_layout_dim, int page_size, "
     "int head_num, int block_quota, int num_warps_per_block",
     nullptr, true},
    {"sgl_kernel", "transfer_kv_per_layer_mla",
     "Tensor src, Tensor! dst, Tensor src_indices, Tensor dst_indices, int item_size, "
     "int block_quota, int num_warps_per_block",
     nullptr, true},
    {"sgl_kernel", "transfer_kv_per_layer_mla_pf_lf",
     "Tensor src, Tensor! dst, Tensor src_indices, Tensor dst_indices, int layer_id, "
     "int item_size, int src_layout_dim, int block_quota, int num_warps_per_block",
     nullptr, true},
    // ---- transfer: all layers; *_layers are tables of addresses, and nothing can be said of what
    // is written behind them
    {"sgl_kernel", "transfer_kv_all_layer",
     "Tensor src_k_layers, Tensor dst_k_layers, Tensor src_v_layers, Tensor dst_v_layers, "
     "Tensor src_indices, Tensor dst_indices, int item_size, int num_layers, int block_quota, "
     "int num_warps_per_block"},
    {"sgl_kernel", "transfer_kv_all_layer_lf_pf",
     "Tensor src_k_layers, Tensor! dst_k, Tensor src_v_layers, Tensor! dst_v, "
     "Tensor src_indices, Tensor dst_indices, int item_size, int dst_layout_dim, "
     "int num_layers, int block_quota, int num_warps_per_block",
     nullptr, true},
    {"sgl_kernel", "transfer_kv_all_layer_lf_ph",
     "Tensor src_k_layers, Tensor! dst_k, Tensor src_v_layers, Tensor! dst_v, "
     "Tensor src_indices, Tensor dst_indices, int item_size, int dst_layout_dim, "
     "int num_layers, int page_size, int head_num, int block_quota, int num_warps_per_block",
     nullptr, true},
    {"sgl_kernel", "transfer_kv_all_layer_mla",
     "Tensor src_layers, Tensor dst_layers, Tensor src_indices, Tensor dst_indices, "
     "int item_size, int num_layers, int block_quota, int num_warps_per_block"},
    {"sgl_kernel", "transfer_kv_all_layer_mla_lf_pf",
     "Tensor src_layers, Tensor! dst, Tensor src_indices, Tensor dst_indices, int item_size, "
     "int dst_layout_dim, int num_layers, int block_quota, int num_warps_per_block",
     nullptr, true},
    // ---- transfer: planned by the host
    {"sgl_kernel", "transfer_kv_direct",
     "Tensor[] src_layers, Tensor(a!)[] dst_layers, Tensor src_indices, Tensor dst_indices, "
     "int page_size",
     nullptr, true},
    {"sgl_kernel", "transfer_embedding_ranges_direct",
     "Tensor src, Tensor! dst, int[] src_starts, int[] dst_starts, int[] lengths"},
    {"sgl_kernel", "transfer_kv_per_layer_direct_pf_lf",
     "Tensor[] src_ptrs, Tensor(a!)[] dst_ptrs, Tensor src_indices, Tensor dst_indices, "
     "int layer_id, int page_size",
     nullptr, true},
    {"sgl_kernel", "transfer_kv_all_layer_direct_lf_pf",
     "Tensor[] src_ptrs, Tensor(a!)[] dst_ptrs, Tensor src_indices, Tensor dst_indices, "
     "int page_size",
     nullptr, true},
};

}  // namespace kvops
