// Contract of indexer_k_quant_and_cache (spec 8.1): the number of tokens is k's, and
// kv_cache_dtype is the format of the scales.
// Called by cpu::indexer_k_quant_and_cache.
#include "common/checks.h"
#include "mla/validate.h"
#include "mla/validate/entries.h"

namespace kvops {
namespace {

constexpr const char* kOp = "indexer_k_quant_and_cache";

// A block is one run of bytes, so only the block stride is free; a last dimension that is wider
// than needed leaves padding at the end of each block.
void check_indexer_cache(const Tensor& kv_cache, int64_t head_elems) {
  check_dim(kv_cache, {kOp, "kv_cache"}, 3);
  check_dtype(kv_cache, {kOp, "kv_cache"}, {DType::kUInt8, DType::kFloat8E4m3fn});
  check_dense_from(kv_cache, {kOp, "kv_cache"}, 1);
  const int64_t entry_bytes =
      head_elems + head_elems / kTileElems * static_cast<int64_t>(sizeof(float));
  if (kv_cache.size(2) < entry_bytes) {
    fail({kOp, "kv_cache"}, "must have at least " + std::to_string(entry_bytes) +
                                " bytes in its last dimension, got shape " + shape_text(kv_cache));
  }
}

}  // namespace

IndexerQuantParams validate_indexer_k_quant_and_cache(const Tensor& k, const Tensor& kv_cache,
                                                      const Tensor& slot_mapping,
                                                      int64_t quant_block_size,
                                                      const std::string& kv_cache_dtype) {
  check_same_device(kOp, {{k, "k"}, {kv_cache, "kv_cache"}, {slot_mapping, "slot_mapping"}});
  check_dim(k, {kOp, "k"}, 2);
  check_dtype(k, {kOp, "k"}, {DType::kBFloat16});
  check_stride(k, {kOp, "k"}, 1, 1);
  if (quant_block_size != kTileElems) {
    fail({kOp, "quant_block_size"},
         "must be " + std::to_string(kTileElems) + ", got " + std::to_string(quant_block_size));
  }
  if (k.size(1) % kTileElems != 0) {
    fail({kOp, "k"}, "must have a multiple of " + std::to_string(kTileElems) +
                         " columns, got shape " + shape_text(k));
  }
  check_indexer_cache(kv_cache, k.size(1));
  check_dim(slot_mapping, {kOp, "slot_mapping"}, 1);
  check_rows(slot_mapping, {kOp, "slot_mapping"}, k.size(0));
  return {
      .k = readable(k, {kOp, "k"}),
      .kv_cache = static_cast<char*>(writable(kv_cache, {kOp, "kv_cache"})),
      .slot_mapping = readable_int64(slot_mapping, {kOp, "slot_mapping"}),
      .power_of_two_scales = kv_cache_dtype == "ue8m0",
      .tokens = k.size(0),
      .num_slots = kv_cache.size(0) * kv_cache.size(1),
      .block_size = kv_cache.size(1),
      .head_elems = k.size(1),
      .k_stride_elems = k.stride(0),
      .block_stride_bytes = kv_cache.stride(0),
  };
}

}  // namespace kvops
