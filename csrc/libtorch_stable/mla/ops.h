// The typed operators of this capability, for registration: one signature, CPU and CUDA.
// Semantics and errors: docstrings in kvops/mla.py.
// Declared through function types, so that no signature is written twice.
#pragma once

#include <cstdint>
#include <string>

#include "common/tensor.h"

namespace kvops {

using ConcatAndCacheMla = void(const Tensor& kv_c, const Tensor& k_pe, Tensor& kv_cache,
                               const Tensor& slot_mapping, const std::string& kv_cache_dtype,
                               const Tensor& scale, bool skip_scale);
using ConcatAndCacheMlaRopeFused = void(const Tensor& positions, Tensor& q_pe, Tensor& k_pe,
                                        const Tensor& kv_c, const Tensor& cos_sin_cache,
                                        bool is_neox, const Tensor& slot_mapping, Tensor& kv_cache,
                                        const std::string& kv_cache_dtype,
                                        const Tensor& kv_cache_scale);
using ConcatMlaQ = void(const Tensor& ql_nope, const Tensor& q_pe, Tensor& q_out);
using IndexerKQuantAndCache = void(const Tensor& k, Tensor& kv_cache, const Tensor& slot_mapping,
                                   int64_t quant_block_size, const std::string& kv_cache_dtype);

namespace cpu {
ConcatAndCacheMla concat_and_cache_mla;
ConcatAndCacheMlaRopeFused concat_and_cache_mla_rope_fused;
ConcatMlaQ concat_mla_q;
IndexerKQuantAndCache indexer_k_quant_and_cache;
}  // namespace cpu

namespace cuda {
ConcatAndCacheMla concat_and_cache_mla;
ConcatAndCacheMlaRopeFused concat_and_cache_mla_rope_fused;
ConcatMlaQ concat_mla_q;
IndexerKQuantAndCache indexer_k_quant_and_cache;
}  // namespace cuda

}  // namespace kvops
