// cp_gather_and_upconvert_fp8_kv_cache on CPU: fp8_ds_mla entries become bfloat16 rows.
// Registered as kvops::cp_gather_and_upconvert_fp8_kv_cache for CPU tensors.
// Values are looked up, scaled by the tile, rounded; rope values are copied.
#include "common/checked_mode.h"
#include "gather/cpu/kernels.h"
#include "gather/cpu/page_runs.h"
#include "gather/ops.h"
#include "gather/validate.h"

namespace kvops::cpu {

void cp_gather_and_upconvert_fp8_kv_cache(const Tensor& src_cache, Tensor& dst,
                                          const Tensor& block_table, const Tensor& seq_lens,
                                          const Tensor& workspace_starts, int64_t batch_size) {
  const CpGatherAndUpconvertFp8KvCacheParams p = validate_cp_gather_and_upconvert_fp8_kv_cache(
      src_cache, dst, block_table, seq_lens, workspace_starts, batch_size);
  if (checked_mode()) {
    check_indices("cp_gather_and_upconvert_fp8_kv_cache", "workspace_starts", p.requests,
                  p.requests.num_rows);
  }
  const GatherKernels& kernels = gather_kernels();
  DecodeTable table;
  kernels.fill_table(table, CacheKind::kFp8E4m3, DType::kBFloat16, 1.0f);
  for_each_page_run(p.requests, p.rows.row_bytes, [&](const PageRun& run) {
    for_each_dense_piece(p.rows, run, [&](char* to, const char* from, int64_t rows) {
      kernels.upconvert_ds_mla(to, from, rows, table);
    });
  });
}

}  // namespace kvops::cpu
