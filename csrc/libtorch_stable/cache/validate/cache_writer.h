// The part of the contract that reshape_and_cache and reshape_and_cache_flash share: key, value,
// slots, element types and scales. Called by their validate functions, which check the shapes of
// the caches and fill in what depends on them.
#pragma once

#include <string>

#include "cache/params.h"
#include "common/tensor.h"

namespace kvops {

struct CacheWriterTensors {
  const Tensor& key;
  const Tensor& value;
  const Tensor& key_cache;
  const Tensor& value_cache;
  const Tensor& slot_mapping;
  const Tensor& k_scale;
  const Tensor& v_scale;
};

// `kind` comes from parse_writer_kind; `scales` is the number of elements of k_scale and v_scale: 1
// or the number of heads. The caches' strides, head sizes, number of slots and block size are left
// 0.
CacheWriterParams validate_cache_writer(const char* op, const CacheWriterTensors& t, CacheKind kind,
                                        int64_t scales);

// "fp8_ds_mla" is a layout of the MLA writers only; everywhere else vLLM reads it as E4M3.
CacheKind parse_writer_kind(const std::string& text, const char* op, bool allow_nvfp4);

}  // namespace kvops
