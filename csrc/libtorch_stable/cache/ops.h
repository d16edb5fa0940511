// The typed operators of this capability, for registration: one signature, CPU and CUDA.
// Semantics and errors: docstrings in kvops/cache.py.
// Declared through function types, so that no signature is written twice.
#pragma once

#include <string>

#include "common/tensor.h"

namespace kvops {

using ReshapeAndCache = void(const Tensor& key, const Tensor& value, Tensor& key_cache,
                             Tensor& value_cache, const Tensor& slot_mapping,
                             const std::string& kv_cache_dtype, const Tensor& k_scale,
                             const Tensor& v_scale, bool interleaved_v);
using ReshapeAndCacheFlash = void(const Tensor& key, const Tensor& value, Tensor& key_cache,
                                  Tensor& value_cache, const Tensor& slot_mapping,
                                  const std::string& kv_cache_dtype, const Tensor& k_scale,
                                  const Tensor& v_scale);
using ConvertFp8 = void(Tensor& dst_cache, const Tensor& src_cache, double scale,
                        const std::string& kv_cache_dtype);

namespace cpu {
ReshapeAndCache reshape_and_cache;
ReshapeAndCacheFlash reshape_and_cache_flash;
ConvertFp8 convert_fp8;
}  // namespace cpu

namespace cuda {
ReshapeAndCache reshape_and_cache;
ReshapeAndCacheFlash reshape_and_cache_flash;
ConvertFp8 convert_fp8;
}  // namespace cuda

}  // namespace kvops
