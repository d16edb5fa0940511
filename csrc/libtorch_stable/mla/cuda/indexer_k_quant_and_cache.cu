// indexer_k_quant_and_cache on CUDA: validate, then one launch.
// Registered as kvops::indexer_k_quant_and_cache for CUDA tensors.
#include "common/checked_mode.h"
#include "common/cuda/context.h"
#include "common/cuda/host_indices.h"
#include "mla/cuda/kernels/indexer_k_quant_and_cache.cuh"
#include "mla/ops.h"
#include "mla/validate.h"

namespace kvops::cuda {

void indexer_k_quant_and_cache(const Tensor& k, Tensor& kv_cache, const Tensor& slot_mapping,
                               int64_t quant_block_size, const std::string& kv_cache_dtype) {
  const IndexerQuantParams p = validate_indexer_k_quant_and_cache(k, kv_cache, slot_mapping,
                                                                  quant_block_size, kv_cache_dtype);
  if (p.tokens == 0) return;
  const CudaContext context("indexer_k_quant_and_cache", k);
  if (checked_mode()) {
    const HostIndices slots(context, "slot_mapping", p.slot_mapping, p.tokens);
    check_slots({context.op(), "slot_mapping"}, slots.data(), p.tokens, p.num_slots);
  }
  context.check(kernels::launch_indexer_k_quant_and_cache(p, context.skips("slot_mapping"),
                                                          context.stream()));
}

}  // namespace kvops::cuda
