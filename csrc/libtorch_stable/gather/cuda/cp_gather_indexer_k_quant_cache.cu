// cp_gather_indexer_k_quant_cache on CUDA: validate, launch.
// Registered as kvops::cp_gather_indexer_k_quant_cache for CUDA tensors.
#include "gather/cuda/kernels/copy_keys_and_scales.cuh"
#include "gather/cuda/tables.h"
#include "gather/ops.h"

namespace kvops::cuda {

void cp_gather_indexer_k_quant_cache(const Tensor& kv_cache, Tensor& dst_k, Tensor& dst_scale,
                                     const Tensor& block_table, const Tensor& cu_seq_lens) {
  const CpGatherIndexerKQuantCacheParams p = validate_cp_gather_indexer_k_quant_cache(
      kv_cache, dst_k, dst_scale, block_table, cu_seq_lens);
  const CudaContext context("cp_gather_indexer_k_quant_cache", kv_cache);
  check_tables(context, "cu_seq_lens", p.requests, p.requests.num_rows);
  context.check(kernels::launch_copy_keys_and_scales(
      gather_tables(context, "cu_seq_lens", p.requests, p.requests.num_rows), p.k, p.scales,
      multiprocessors(context), context.stream()));
}

}  // namespace kvops::cuda
