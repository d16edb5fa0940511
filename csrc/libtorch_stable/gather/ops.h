// The typed operators of this capability, for registration: one signature, CPU and CUDA.
// Semantics and errors: docstrings in kvops/gather.py.
// Declared through function types, so that no signature is written twice.
#pragma once

#include <cstdint>
#include <string>

#include "common/tensor.h"

namespace kvops {

using GatherAndMaybeDequantCache = void(const Tensor& src_cache, Tensor& dst,
                                        const Tensor& block_table, const Tensor& cu_seq_lens,
                                        const Tensor& token_to_seq, int64_t num_tokens,
                                        const std::string& kv_cache_dtype, const Tensor& scale,
                                        const OptionalTensor& seq_starts);
using CpGatherCache = void(const Tensor& src_cache, Tensor& dst, const Tensor& block_table,
                           const Tensor& cu_seq_lens, int64_t batch_size,
                           const OptionalTensor& seq_starts);
using CpGatherAndUpconvertFp8KvCache = void(const Tensor& src_cache, Tensor& dst,
                                            const Tensor& block_table, const Tensor& seq_lens,
                                            const Tensor& workspace_starts, int64_t batch_size);
using CpGatherIndexerKQuantCache = void(const Tensor& kv_cache, Tensor& dst_k, Tensor& dst_scale,
                                        const Tensor& block_table, const Tensor& cu_seq_lens);

namespace cpu {
GatherAndMaybeDequantCache gather_and_maybe_dequant_cache;
CpGatherCache cp_gather_cache;
CpGatherAndUpconvertFp8KvCache cp_gather_and_upconvert_fp8_kv_cache;
CpGatherIndexerKQuantCache cp_gather_indexer_k_quant_cache;
}  // namespace cpu

namespace cuda {
GatherAndMaybeDequantCache gather_and_maybe_dequant_cache;
CpGatherCache cp_gather_cache;
CpGatherAndUpconvertFp8KvCache cp_gather_and_upconvert_fp8_kv_cache;
CpGatherIndexerKQuantCache cp_gather_indexer_k_quant_cache;
}  // namespace cuda

}  // namespace kvops
