// concat_and_cache_mla on CUDA: validate, then one launch.
// Registered as kvops::concat_and_cache_mla for CUDA tensors.
#include "common/checked_mode.h"
#include "common/cuda/context.h"
#include "common/cuda/host_indices.h"
#include "mla/cuda/kernels/concat_and_cache_mla.cuh"
#include "mla/ops.h"
#include "mla/validate.h"

namespace kvops::cuda {

void concat_and_cache_mla(const Tensor& kv_c, const Tensor& k_pe, Tensor& kv_cache,
                          const Tensor& slot_mapping, const std::string& kv_cache_dtype,
                          const Tensor& scale, bool skip_scale) {
  const MlaEntriesParams p = validate_concat_and_cache_mla(kv_c, k_pe, kv_cache, slot_mapping,
                                                           kv_cache_dtype, scale, skip_scale);
  if (p.tokens == 0) return;
  const CudaContext context("concat_and_cache_mla", kv_c);
  if (checked_mode()) {
    const HostIndices slots(context, "slot_mapping", p.slot_mapping, p.tokens);
    check_slots({context.op(), "slot_mapping"}, slots.data(), p.tokens, p.num_slots);
  }
  context.check(
      kernels::launch_concat_and_cache_mla(p, context.skips("slot_mapping"), context.stream()));
}

}  // namespace kvops::cuda
