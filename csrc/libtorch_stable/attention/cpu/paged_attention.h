// What paged_attention_v1 and _v2 share on CPU.
// Called by both operators with validated parameters.
#pragma once

#include "attention/params.h"

namespace kvops::cpu {

// Computes p.out, and where p.exp_sums is set also the sums and maxima of each partition.
void paged_attention(const char* op, const PagedAttentionParams& p);

}  // namespace kvops::cpu
