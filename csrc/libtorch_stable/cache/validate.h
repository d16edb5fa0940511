// Checks the arguments of the cache operators and fills their parameter structs.
// Called first by the CPU and the CUDA operator alike; throws before anything is written.
// Slots are not looked at here: kernels skip bad ones, checked mode names them.
#pragma once

#include <string>

#include "cache/params.h"
#include "common/tensor.h"

namespace kvops {

CacheWriterParams validate_reshape_and_cache(const Tensor& key, const Tensor& value,
                                             const Tensor& key_cache, const Tensor& value_cache,
                                             const Tensor& slot_mapping,
                                             const std::string& kv_cache_dtype,
                                             const Tensor& k_scale, const Tensor& v_scale,
                                             bool interleaved_v);

CacheWriterParams validate_reshape_and_cache_flash(const Tensor& key, const Tensor& value,
                                                   const Tensor& key_cache,
                                                   const Tensor& value_cache,
                                                   const Tensor& slot_mapping,
                                                   const std::string& kv_cache_dtype,
                                                   const Tensor& k_scale, const Tensor& v_scale);

// reshape_and_cache_flash with one of the nvfp4 kinds, which has parameters of its own.
bool is_nvfp4(const std::string& kv_cache_dtype);
Nvfp4WriterParams validate_reshape_and_cache_nvfp4(const Tensor& key, const Tensor& value,
                                                   const Tensor& key_cache,
                                                   const Tensor& value_cache,
                                                   const Tensor& slot_mapping,
                                                   const std::string& kv_cache_dtype,
                                                   const Tensor& k_scale, const Tensor& v_scale);

ConvertFp8Params validate_convert_fp8(const Tensor& dst_cache, const Tensor& src_cache,
                                      double scale, const std::string& kv_cache_dtype);

}  // namespace kvops
