// cp_gather_and_upconvert_fp8_kv_cache on CUDA: validate, launch.
// Registered as kvops::cp_gather_and_upconvert_fp8_kv_cache for CUDA tensors.
#include "gather/cuda/kernels/upconvert_rows.cuh"
#include "gather/cuda/tables.h"
#include "gather/ops.h"

namespace kvops::cuda {

void cp_gather_and_upconvert_fp8_kv_cache(const Tensor& src_cache, Tensor& dst,
                                          const Tensor& block_table, const Tensor& seq_lens,
                                          const Tensor& workspace_starts, int64_t batch_size) {
  const CpGatherAndUpconvertFp8KvCacheParams p = validate_cp_gather_and_upconvert_fp8_kv_cache(
      src_cache, dst, block_table, seq_lens, workspace_starts, batch_size);
  const CudaContext context("cp_gather_and_upconvert_fp8_kv_cache", src_cache);
  context.check(kernels::launch_upconvert_rows(
      gather_call(context, "workspace_starts", p.requests, p.requests.num_rows), p.rows));
}

}  // namespace kvops::cuda
