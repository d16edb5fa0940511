// merge_attn_states on CUDA: validate, then one launch.
// Registered as kvops::merge_attn_states for CUDA tensors.
#include "attention/cuda/kernels/merge_attn_states.cuh"
#include "attention/ops.h"
#include "attention/validate.h"
#include "common/cuda/context.h"

namespace kvops::cuda {

void merge_attn_states(Tensor& output, const OptionalTensor& output_lse,
                       const Tensor& prefix_output, const Tensor& prefix_lse,
                       const Tensor& suffix_output, const Tensor& suffix_lse,
                       const std::optional<int64_t>& prefill_tokens_with_context,
                       const OptionalTensor& output_scale) {
  const MergeAttnStatesParams p =
      validate_merge_attn_states(output, output_lse, prefix_output, prefix_lse, suffix_output,
                                 suffix_lse, prefill_tokens_with_context, output_scale);
  if (p.num_tokens * p.num_heads == 0) return;
  const CudaContext context("merge_attn_states", output);
  context.check(kernels::launch_merge_attn_states(p, context.stream()));
}

}  // namespace kvops::cuda
