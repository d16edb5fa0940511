// Contract of cp_gather_indexer_k_quant_cache (spec 8.2).
// Called by cpu::cp_gather_indexer_k_quant_cache and cuda::cp_gather_indexer_k_quant_cache.
// A block of the indexer cache holds the values of all of its tokens, then all of their scales.
#include "gather/validate.h"
#include "gather/validate/tables.h"

namespace kvops {
namespace {

constexpr const char* kOp = "cp_gather_indexer_k_quant_cache";
constexpr int64_t kScaleBytes = sizeof(float);

void check_geometry(const Tensor& kv_cache, const Tensor& dst_k, const Tensor& dst_scale) {
  check_dim(kv_cache, {kOp, "kv_cache"}, 3);
  check_dim(dst_k, {kOp, "dst_k"}, 2);
  check_shape(dst_scale, {kOp, "dst_scale"}, {dst_k.size(0), kAnySize});
  const int64_t head_dim = dst_k.size(1);
  const int64_t scales_bytes = dst_scale.size(1);
  const int64_t scales = scales_bytes / kScaleBytes;
  if (scales == 0 || scales_bytes % kScaleBytes != 0 || head_dim % scales != 0) {
    fail({kOp, "dst_scale"}, "must have rows of float32 scales as bytes, an equal part of the " +
                                 std::to_string(head_dim) + " values for each, got shape " +
                                 shape_text(dst_scale));
  }
  check_shape(kv_cache, {kOp, "kv_cache"}, {kAnySize, kAnySize, head_dim + scales_bytes});
  check_dense_from(kv_cache, {kOp, "kv_cache"}, 1);
}

// The values (`first_byte` 0) or the scales of a block, as entries of their own.
EntryRows part_of_block(const Tensor& kv_cache, int64_t first_byte, const Tensor& dst, Arg arg) {
  EntryRows rows = validate_entry_rows(kv_cache, {kOp, "kv_cache"}, dst, arg);
  if (rows.src != nullptr) rows.src += first_byte;
  rows.entry_bytes = rows.row_bytes;
  rows.entry_stride_bytes = rows.row_bytes;
  return rows;
}

}  // namespace

CpGatherIndexerKQuantCacheParams validate_cp_gather_indexer_k_quant_cache(
    const Tensor& kv_cache, const Tensor& dst_k, const Tensor& dst_scale, const Tensor& block_table,
    const Tensor& cu_seq_lens) {
  check_same_device(kOp, {{kv_cache, "kv_cache"},
                          {dst_k, "dst_k"},
                          {dst_scale, "dst_scale"},
                          {block_table, "block_table"},
                          {cu_seq_lens, "cu_seq_lens"}});
  check_dtype(kv_cache, {kOp, "kv_cache"}, {DType::kUInt8, DType::kFloat8E4m3fn});
  check_dtype(dst_k, {kOp, "dst_k"}, {DType::kUInt8, DType::kFloat8E4m3fn});
  check_dtype(dst_scale, {kOp, "dst_scale"}, {DType::kUInt8, DType::kFloat8E4m3fn});
  check_geometry(kv_cache, dst_k, dst_scale);
  const Arg starts_arg{kOp, "cu_seq_lens"};
  const int64_t num_requests = requests_of(cu_seq_lens, starts_arg);
  PagedRequests requests =
      validate_requests(kOp, block_table, std::nullopt, num_requests, kv_cache, dst_k.size(0));
  requests.num_row_starts = num_requests + 1;
  requests.row_starts = readable_table(cu_seq_lens, starts_arg, requests.num_row_starts);
  return {
      .requests = requests,
      .k = part_of_block(kv_cache, 0, dst_k, {kOp, "dst_k"}),
      .scales =
          part_of_block(kv_cache, kv_cache.size(1) * dst_k.size(1), dst_scale, {kOp, "dst_scale"}),
  };
}

}  // namespace kvops
