// Checks the arguments of the MLA operators and fills their parameter structs.
// Called first by the CPU and the CUDA operator alike; throws before anything is written.
// What only the values of index tensors can tell is left to the kernels (skipped) or checked mode.
#pragma once

#include <string>

#include "common/tensor.h"
#include "mla/params.h"

namespace kvops {

MlaEntriesParams validate_concat_and_cache_mla(const Tensor& kv_c, const Tensor& k_pe,
                                               const Tensor& kv_cache, const Tensor& slot_mapping,
                                               const std::string& kv_cache_dtype,
                                               const Tensor& scale, bool skip_scale);

RopeFusedParams validate_concat_and_cache_mla_rope_fused(
    const Tensor& positions, const Tensor& q_pe, const Tensor& k_pe, const Tensor& kv_c,
    const Tensor& cos_sin_cache, bool is_neox, const Tensor& slot_mapping, const Tensor& kv_cache,
    const std::string& kv_cache_dtype, const Tensor& kv_cache_scale);

ConcatMlaQParams validate_concat_mla_q(const Tensor& ql_nope, const Tensor& q_pe,
                                       const Tensor& q_out);

IndexerQuantParams validate_indexer_k_quant_and_cache(const Tensor& k, const Tensor& kv_cache,
                                                      const Tensor& slot_mapping,
                                                      int64_t quant_block_size,
                                                      const std::string& kv_cache_dtype);

}  // namespace kvops
