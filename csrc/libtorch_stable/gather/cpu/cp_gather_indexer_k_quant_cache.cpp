// cp_gather_indexer_k_quant_cache on CPU: two gathers, of the values and of their scales.
// Registered as kvops::cp_gather_indexer_k_quant_cache for CPU tensors.
// Only bytes are moved, so there is no kernel per SIMD level: memcpy is one already.
#include "common/checked_mode.h"
#include "gather/cpu/page_runs.h"
#include "gather/ops.h"
#include "gather/validate.h"

namespace kvops::cpu {

void cp_gather_indexer_k_quant_cache(const Tensor& kv_cache, Tensor& dst_k, Tensor& dst_scale,
                                     const Tensor& block_table, const Tensor& cu_seq_lens) {
  const CpGatherIndexerKQuantCacheParams p = validate_cp_gather_indexer_k_quant_cache(
      kv_cache, dst_k, dst_scale, block_table, cu_seq_lens);
  if (checked_mode()) {
    check_indices("cp_gather_indexer_k_quant_cache", "cu_seq_lens", p.requests,
                  p.requests.num_rows);
  }
  for_each_page_run(p.requests, p.k.row_bytes + p.scales.row_bytes, [&p](const PageRun& run) {
    copy_run(p.k, run);
    copy_run(p.scales, run);
  });
}

}  // namespace kvops::cpu
