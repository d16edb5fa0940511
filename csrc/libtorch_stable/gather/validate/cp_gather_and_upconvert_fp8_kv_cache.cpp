// Contract of cp_gather_and_upconvert_fp8_kv_cache (spec 7.3, vLLM 0.23's six arguments).
// Called by cpu::cp_gather_and_upconvert_fp8_kv_cache and its CUDA counterpart.
#include "gather/validate.h"
#include "gather/validate/tables.h"

namespace kvops {

CpGatherAndUpconvertFp8KvCacheParams validate_cp_gather_and_upconvert_fp8_kv_cache(
    const Tensor& src_cache, const Tensor& dst, const Tensor& block_table, const Tensor& seq_lens,
    const Tensor& workspace_starts, int64_t batch_size) {
  constexpr const char* kOp = "cp_gather_and_upconvert_fp8_kv_cache";
  const Arg src_arg{kOp, "src_cache"};
  const Arg dst_arg{kOp, "dst"};
  const Arg starts_arg{kOp, "workspace_starts"};
  check_same_device(kOp, {{src_cache, "src_cache"},
                          {dst, "dst"},
                          {block_table, "block_table"},
                          {seq_lens, "seq_lens"},
                          {workspace_starts, "workspace_starts"}});
  check_cache_dtype(src_cache, src_arg, CacheKind::kFp8DsMla, DType::kBFloat16);
  check_dtype(dst, dst_arg, {DType::kBFloat16});
  check_shape(src_cache, src_arg, {kAnySize, kAnySize, kDsMlaEntryBytes});
  check_shape(dst, dst_arg, {kAnySize, kDsMlaRowElems});
  check_dim(workspace_starts, starts_arg, 1);
  check_dtype(workspace_starts, starts_arg, {DType::kInt32});
  check_count({kOp, "batch_size"}, batch_size, workspace_starts.size(0),
              "requests of workspace_starts");
  // vLLM 0.23 checks the lengths, too, and does not use their values.
  readable_table(seq_lens, {kOp, "seq_lens"}, batch_size);
  PagedRequests requests =
      validate_requests(kOp, block_table, std::nullopt, batch_size, src_cache, dst.size(0));
  requests.num_row_starts = batch_size;
  requests.row_starts = readable_table(workspace_starts, starts_arg, batch_size);
  return {.requests = requests, .rows = validate_entry_rows(src_cache, src_arg, dst, dst_arg)};
}

}  // namespace kvops
