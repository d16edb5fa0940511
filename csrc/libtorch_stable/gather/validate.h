// Checks the arguments of the gathers and fills their parameter structs.
// Called first by the CPU and the CUDA operator alike; throws before anything is written.
// What only the values of index tensors can tell is left to the kernels (skipped) or to
// check_indices, which needs tables that the host can read.
#pragma once

#include <string>

#include "common/tensor.h"
#include "gather/params.h"

namespace kvops {

GatherAndMaybeDequantCacheParams validate_gather_and_maybe_dequant_cache(
    const Tensor& src_cache, const Tensor& dst, const Tensor& block_table,
    const Tensor& cu_seq_lens, const Tensor& token_to_seq, int64_t num_tokens,
    const std::string& kv_cache_dtype, const Tensor& scale, const OptionalTensor& seq_starts);

CpGatherCacheParams validate_cp_gather_cache(const Tensor& src_cache, const Tensor& dst,
                                             const Tensor& block_table, const Tensor& cu_seq_lens,
                                             int64_t batch_size, const OptionalTensor& seq_starts);

CpGatherAndUpconvertFp8KvCacheParams validate_cp_gather_and_upconvert_fp8_kv_cache(
    const Tensor& src_cache, const Tensor& dst, const Tensor& block_table, const Tensor& seq_lens,
    const Tensor& workspace_starts, int64_t batch_size);

CpGatherIndexerKQuantCacheParams validate_cp_gather_indexer_k_quant_cache(
    const Tensor& kv_cache, const Tensor& dst_k, const Tensor& dst_scale, const Tensor& block_table,
    const Tensor& cu_seq_lens);

// Checked mode: raises if a value of the tables would make the gather skip a row of a request.
// Rows that belong to no request are no mistake, nor are table entries that no row needs.
// `starts_name` is what the operator calls row_starts; they must lie in [0, dst_rows].
void check_indices(const char* op, const char* starts_name, const PagedRequests& requests,
                   int64_t dst_rows);
void check_token_to_seq(const char* op, const int32_t* token_to_seq, const PagedRequests& requests);

}  // namespace kvops
