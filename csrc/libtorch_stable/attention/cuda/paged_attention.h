// What paged_attention_v1 and _v2 share on CUDA. Called by both operators with validated
// parameters.
#pragma once

#include "attention/params.h"
#include "common/tensor.h"

namespace kvops::cuda {

// Computes p.out, and where p.exp_sums is set also what version 2's scratch is to hold. Device and
// stream are those of `query`.
void paged_attention(const char* op, const PagedAttentionParams& p, const Tensor& query);

}  // namespace kvops::cuda
