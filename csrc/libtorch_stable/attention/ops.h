// The typed operators of this capability, for registration: one signature, CPU and CUDA.
// Semantics and errors: docstrings in kvops/attention.py.
// Declared through function types, so that no signature is written twice; paged_attention_v1.h and
// _v2.h make both versions of paged attention from what computes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "attention/validate.h"
#include "common/tensor.h"

namespace kvops {

using MergeAttnStates = void(Tensor& output, const OptionalTensor& output_lse,
                             const Tensor& prefix_output, const Tensor& prefix_lse,
                             const Tensor& suffix_output, const Tensor& suffix_lse,
                             const std::optional<int64_t>& prefill_tokens_with_context,
                             const OptionalTensor& output_scale);

namespace cpu {
ComputePagedAttention paged_attention;
MergeAttnStates merge_attn_states;
}  // namespace cpu

namespace cuda {
ComputePagedAttention paged_attention;
MergeAttnStates merge_attn_states;
}  // namespace cuda

}  // namespace kvops
