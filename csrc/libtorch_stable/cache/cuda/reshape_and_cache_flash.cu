// reshape_and_cache_flash on CUDA: validate, launch.
// Registered as kvops::reshape_and_cache_flash for CUDA tensors.
#include "cache/cuda/kernels/reshape_and_cache_flash.cuh"

#include "cache/cuda/checked_slots.h"
#include "cache/cuda/nvfp4.h"
#include "cache/ops.h"
#include "cache/validate.h"

namespace kvops::cuda {

void reshape_and_cache_flash(const Tensor& key, const Tensor& value, Tensor& key_cache,
                             Tensor& value_cache, const Tensor& slot_mapping,
                             const std::string& kv_cache_dtype, const Tensor& k_scale,
                             const Tensor& v_scale) {
  if (is_nvfp4(kv_cache_dtype)) {
    const Nvfp4WriterParams p = validate_reshape_and_cache_nvfp4(
        key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale);
    if (p.tokens == 0) return;
    const CudaContext context("reshape_and_cache_flash", key);
    check_slots_on_device(context, p);
    write_nvfp4_pages(context, p);
    return;
  }
  const CacheWriterParams p = validate_reshape_and_cache_flash(
      key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale);
  if (p.tokens == 0) return;
  const CudaContext context("reshape_and_cache_flash", key);
  check_slots_on_device(context, p);
  context.check(
      kernels::launch_reshape_and_cache_flash(p, context.skips("slot_mapping"), context.stream()));
}

}  // namespace kvops::cuda
