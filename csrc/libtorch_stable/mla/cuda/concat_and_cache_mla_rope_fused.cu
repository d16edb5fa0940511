// concat_and_cache_mla_rope_fused on CUDA: validate, then one launch.
// Registered as kvops::concat_and_cache_mla_rope_fused for CUDA tensors.
#include "common/checked_mode.h"
#include "common/cuda/context.h"
#include "common/cuda/host_indices.h"
#include "mla/cuda/kernels/concat_and_cache_mla_rope_fused.cuh"
#include "mla/ops.h"
#include "mla/validate.h"

namespace kvops::cuda {

void concat_and_cache_mla_rope_fused(const Tensor& positions, Tensor& q_pe, Tensor& k_pe,
                                     const Tensor& kv_c, const Tensor& cos_sin_cache, bool is_neox,
                                     const Tensor& slot_mapping, Tensor& kv_cache,
                                     const std::string& kv_cache_dtype,
                                     const Tensor& kv_cache_scale) {
  constexpr const char* kOp = "concat_and_cache_mla_rope_fused";
  const RopeFusedParams p = validate_concat_and_cache_mla_rope_fused(
      positions, q_pe, k_pe, kv_c, cos_sin_cache, is_neox, slot_mapping, kv_cache, kv_cache_dtype,
      kv_cache_scale);
  const int64_t tokens = p.entries.tokens;
  if (tokens == 0) return;
  const CudaContext context(kOp, q_pe);
  if (checked_mode()) {
    const HostIndices slots(context, "slot_mapping", p.entries.slot_mapping, tokens);
    check_slots({kOp, "slot_mapping"}, slots.data(), tokens, p.entries.num_slots);
    const HostIndices rows(context, "positions", p.positions, tokens);
    check_index_values({kOp, "positions"}, rows.data(), tokens, 0, p.max_positions);
  }
  context.check(kernels::launch_concat_and_cache_mla_rope_fused(
      p, context.skips("slot_mapping"), context.skips("positions"), context.stream()));
}

}  // namespace kvops::cuda
