// cp_gather_cache on CUDA: validate, launch.
// Registered as kvops::cp_gather_cache for CUDA tensors.
#include "gather/cuda/kernels/copy_rows.h"
#include "gather/cuda/tables.h"
#include "gather/ops.h"

namespace kvops::cuda {

void cp_gather_cache(const Tensor& src_cache, Tensor& dst, const Tensor& block_table,
                     const Tensor& cu_seq_lens, int64_t batch_size,
                     const OptionalTensor& seq_starts) {
  const CpGatherCacheParams p =
      validate_cp_gather_cache(src_cache, dst, block_table, cu_seq_lens, batch_size, seq_starts);
  const CudaContext context("cp_gather_cache", src_cache);
  context.check(kernels::launch_copy_rows(
      gather_call(context, "cu_seq_lens", p.requests, p.requests.num_rows), p.rows));
}

}  // namespace kvops::cuda
