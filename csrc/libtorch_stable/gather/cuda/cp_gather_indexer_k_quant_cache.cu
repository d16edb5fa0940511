// cp_gather_indexer_k_quant_cache on CUDA: validate, launch.
// Registered as kvops::cp_gather_indexer_k_quant_cache for CUDA tensors.
// Kernels: units of 16 and 4, 4 and 4, 1 and 1 bytes for keys and scales, for few rows or many = 6,
// and one for keys of 128, 256 or 512 bytes.
#include "gather/cuda/kernels/copy_rows.cuh"
#include "gather/cuda/kernels/gather_keys.cuh"
#include "gather/cuda/tables.h"
#include "gather/ops.h"

namespace kvops::cuda {
namespace {

cudaError_t launch(const kernels::GatherCall& call, const EntryRows& keys,
                   const EntryRows& scales) {
  const int64_t columns = kernels::CopyKeysAndScales<uint4, uint32_t>(keys, scales).columns;
  if (kernels::can_gather_keys(call, keys, scales) && !kernels::are_few(call, columns)) {
    return kernels::launch_gather_keys(call, keys, scales);
  }
  const auto copy = [&]<class KeyUnit, class ScaleUnit>(KeyUnit, ScaleUnit) {
    return kernels::launch_gather(call,
                                  kernels::CopyKeysAndScales<KeyUnit, ScaleUnit>(keys, scales));
  };
  const int key_unit = kernels::common_unit_bytes(keys);
  if (kernels::common_unit_bytes(scales) < 4 || key_unit < 4) return copy(uint8_t{}, uint8_t{});
  return key_unit == 16 ? copy(uint4{}, uint32_t{}) : copy(uint32_t{}, uint32_t{});
}

}  // namespace

void cp_gather_indexer_k_quant_cache(const Tensor& kv_cache, Tensor& dst_k, Tensor& dst_scale,
                                     const Tensor& block_table, const Tensor& cu_seq_lens) {
  const CpGatherIndexerKQuantCacheParams p = validate_cp_gather_indexer_k_quant_cache(
      kv_cache, dst_k, dst_scale, block_table, cu_seq_lens);
  const CudaContext context("cp_gather_indexer_k_quant_cache", kv_cache);
  context.check(
      launch(gather_call(context, "cu_seq_lens", p.requests, p.requests.num_rows), p.k, p.scales));
}

}  // namespace kvops::cuda
