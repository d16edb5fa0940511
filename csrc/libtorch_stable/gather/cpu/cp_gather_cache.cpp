// cp_gather_cache on CPU: copies stretches of pages.
// Registered as kvops::cp_gather_cache for CPU tensors.
// Only bytes are moved, so there is no kernel per SIMD level: memcpy is one already.
#include "common/checked_mode.h"
#include "gather/cpu/page_runs.h"
#include "gather/ops.h"
#include "gather/validate.h"

namespace kvops::cpu {

void cp_gather_cache(const Tensor& src_cache, Tensor& dst, const Tensor& block_table,
                     const Tensor& cu_seq_lens, int64_t batch_size,
                     const OptionalTensor& seq_starts) {
  const CpGatherCacheParams p =
      validate_cp_gather_cache(src_cache, dst, block_table, cu_seq_lens, batch_size, seq_starts);
  if (checked_mode()) {
    check_indices("cp_gather_cache", "cu_seq_lens", p.requests, p.requests.num_rows);
  }
  for_each_page_run(p.requests, p.rows.row_bytes,
                    [&p](const PageRun& run) { copy_run(p.rows, run); });
}

}  // namespace kvops::cpu
