// The half of the contract that both writers of MLA entries share: [kv_c | k_pe] into kv_cache.
// Called by validate_concat_and_cache_mla and ..._rope_fused, which check row counts themselves.
// Ranks, widths, dtypes and strides are checked here; the scale only where it is read.
#pragma once

#include <string>

#include "common/checks.h"
#include "mla/params.h"

namespace kvops {

struct MlaEntriesArgs {
  const char* op;
  const Tensor& kv_c;
  const Tensor& k_pe;
  const Tensor& kv_cache;
  const Tensor& slot_mapping;
  CacheKind kind;
  NamedTensor scale;
  bool skip_scale = false;  // the scale is 1, and the tensor is not looked at
};

MlaEntriesParams validate_mla_entries(const MlaEntriesArgs& args);

// `tensor` has at least `rows` of them in dimension 0.
void check_rows(const Tensor& tensor, Arg arg, int64_t rows);

}  // namespace kvops
