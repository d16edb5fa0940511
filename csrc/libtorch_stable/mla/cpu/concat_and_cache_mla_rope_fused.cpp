// concat_and_cache_mla_rope_fused on CPU: validate, then rotate and write token by token.
// Registered as kvops::concat_and_cache_mla_rope_fused for CPU tensors.
#include "common/checked_mode.h"
#include "common/parallel.h"
#include "mla/cpu/kernels.h"
#include "mla/ops.h"
#include "mla/validate.h"

namespace kvops::cpu {

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
  check_slots({kOp, "slot_mapping"}, p.entries.slot_mapping, tokens, p.entries.num_slots);
  check_index_values({kOp, "positions"}, p.positions, tokens, 0, p.max_positions);
  const MlaKernels& kernels = mla_kernels();
  // About the same work per thread, whatever the number of heads.
  const int64_t token_elems = p.heads * p.rot_elems + p.entries.latent_elems;
  const int64_t grain = 1 + (int64_t{1} << 15) / (token_elems + 1);
  parallel_for(tokens, grain,
               [&](int64_t begin, int64_t end) noexcept { kernels.rope_fused(p, begin, end); });
}

}  // namespace kvops::cpu
