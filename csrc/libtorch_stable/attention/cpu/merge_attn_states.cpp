// merge_attn_states on CPU.
// Registered as kvops::merge_attn_states for CPU tensors.
// The work is one pass over rows (token, head); see kernels/merge_attn_states.cpp.
#include "attention/cpu/kernels.h"
#include "attention/ops.h"
#include "attention/validate.h"
#include "common/parallel.h"

namespace kvops::cpu {

void merge_attn_states(Tensor& output, const OptionalTensor& output_lse,
                       const Tensor& prefix_output, const Tensor& prefix_lse,
                       const Tensor& suffix_output, const Tensor& suffix_lse,
                       const std::optional<int64_t>& prefill_tokens_with_context,
                       const OptionalTensor& output_scale) {
  const MergeAttnStatesParams p =
      validate_merge_attn_states(output, output_lse, prefix_output, prefix_lse, suffix_output,
                                 suffix_lse, prefill_tokens_with_context, output_scale);
  const MergeAttnStatesKernels& kernels = merge_attn_states_kernels();
  parallel_for(p.num_tokens * p.num_heads, 64,
               [&](int64_t begin, int64_t end) noexcept { kernels.merge_rows(p, begin, end); });
}

}  // namespace kvops::cpu
