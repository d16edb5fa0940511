// indexer_k_quant_and_cache on CPU: validate, then the keys of every token in parallel.
// Registered as kvops::indexer_k_quant_and_cache for CPU tensors.
#include "common/checked_mode.h"
#include "common/parallel.h"
#include "mla/cpu/kernels.h"
#include "mla/ops.h"
#include "mla/validate.h"

namespace kvops::cpu {

void indexer_k_quant_and_cache(const Tensor& k, Tensor& kv_cache, const Tensor& slot_mapping,
                               int64_t quant_block_size, const std::string& kv_cache_dtype) {
  const IndexerQuantParams p = validate_indexer_k_quant_and_cache(k, kv_cache, slot_mapping,
                                                                  quant_block_size, kv_cache_dtype);
  check_slots({"indexer_k_quant_and_cache", "slot_mapping"}, p.slot_mapping, p.tokens, p.num_slots);
  const MlaKernels& kernels = mla_kernels();
  parallel_for(p.tokens, 128,
               [&](int64_t begin, int64_t end) noexcept { kernels.indexer_quant(p, begin, end); });
}

}  // namespace kvops::cpu
