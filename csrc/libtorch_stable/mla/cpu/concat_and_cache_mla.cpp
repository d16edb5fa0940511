// concat_and_cache_mla on CPU: validate, then the entries of every token in parallel.
// Registered as kvops::concat_and_cache_mla for CPU tensors.
#include "common/checked_mode.h"
#include "common/parallel.h"
#include "mla/cpu/kernels.h"
#include "mla/ops.h"
#include "mla/validate.h"

namespace kvops::cpu {

void concat_and_cache_mla(const Tensor& kv_c, const Tensor& k_pe, Tensor& kv_cache,
                          const Tensor& slot_mapping, const std::string& kv_cache_dtype,
                          const Tensor& scale, bool skip_scale) {
  const MlaEntriesParams p = validate_concat_and_cache_mla(kv_c, k_pe, kv_cache, slot_mapping,
                                                           kv_cache_dtype, scale, skip_scale);
  check_slots({"concat_and_cache_mla", "slot_mapping"}, p.slot_mapping, p.tokens, p.num_slots);
  const MlaKernels& kernels = mla_kernels();
  parallel_for(p.tokens, 64,
               [&](int64_t begin, int64_t end) noexcept { kernels.write_entries(p, begin, end); });
}

}  // namespace kvops::cpu
