// paged_attention_v2 on CPU and CUDA: version 1, and sums and maxima of its partitions. tmp_out is
// only checked: partial results are kept in fp32 elsewhere. On CUDA the first partition gets the
// sum and maximum of the whole row, the others what adds nothing. Registered as
// kvops::paged_attention_v2. Semantics and errors: docstring in kvops/attention.py.
#pragma once

#include <cstdint>
#include <string>

#include "attention/validate.h"
#include "common/tensor.h"

namespace kvops {

template <ComputePagedAttention* kCompute>
void paged_attention_v2(Tensor& out, Tensor& exp_sums, Tensor& max_logits, Tensor& tmp_out,
                        const Tensor& query, const Tensor& key_cache, const Tensor& value_cache,
                        int64_t num_kv_heads, double scale, const Tensor& block_tables,
                        const Tensor& seq_lens, int64_t block_size, int64_t max_seq_len,
                        const OptionalTensor& alibi_slopes, const std::string& kv_cache_dtype,
                        const Tensor& k_scale, const Tensor& v_scale, int64_t tp_rank,
                        int64_t blocksparse_local_blocks, int64_t blocksparse_vert_stride,
                        int64_t blocksparse_block_size, int64_t blocksparse_head_sliding_step) {
  constexpr const char* kOp = "paged_attention_v2";
  kCompute(kOp,
           validate_paged_attention_v2({kOp,
                                        out,
                                        query,
                                        key_cache,
                                        value_cache,
                                        num_kv_heads,
                                        scale,
                                        block_tables,
                                        seq_lens,
                                        block_size,
                                        max_seq_len,
                                        alibi_slopes,
                                        kv_cache_dtype,
                                        k_scale,
                                        v_scale,
                                        tp_rank,
                                        blocksparse_local_blocks,
                                        blocksparse_vert_stride,
                                        blocksparse_block_size,
                                        blocksparse_head_sliding_step},
                                       {exp_sums, max_logits, tmp_out}),
           query);
}

}  // namespace kvops
