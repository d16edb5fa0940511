// Contract of gather_and_maybe_dequant_cache (spec 7.1, wider than vLLM: any row width).
// Called by cpu::gather_and_maybe_dequant_cache and cuda::gather_and_maybe_dequant_cache.
#include "gather/validate.h"
#include "gather/validate/tables.h"

namespace kvops {
namespace {
constexpr const char* kOp = "gather_and_maybe_dequant_cache";
}  // namespace

GatherAndMaybeDequantCacheParams validate_gather_and_maybe_dequant_cache(
    const Tensor& src_cache, const Tensor& dst, const Tensor& block_table,
    const Tensor& cu_seq_lens, const Tensor& token_to_seq, int64_t num_tokens,
    const std::string& kv_cache_dtype, const Tensor& scale, const OptionalTensor& seq_starts) {
  const Arg src_arg{kOp, "src_cache"};
  const Arg dst_arg{kOp, "dst"};
  check_same_device(kOp, {{src_cache, "src_cache"},
                          {dst, "dst"},
                          {block_table, "block_table"},
                          {cu_seq_lens, "cu_seq_lens"},
                          {token_to_seq, "token_to_seq"}});
  if (seq_starts) {
    check_same_device(kOp, {{src_cache, "src_cache"}, {*seq_starts, "seq_starts"}});
  }
  const CacheKind kind = parse_cache_kind(
      kv_cache_dtype, kOp, {CacheKind::kAuto, CacheKind::kFp8E4m3, CacheKind::kFp8E5m2});
  const DType dtype = check_dtype(dst, dst_arg, {DType::kFloat, DType::kHalf, DType::kBFloat16});
  check_cache_dtype(src_cache, src_arg, kind, dtype);
  check_dim(src_cache, src_arg, 3);
  const int64_t row_elems = src_cache.size(2);
  check_shape(dst, dst_arg, {kAnySize, row_elems});
  check_count({kOp, "num_tokens"}, num_tokens, dst.size(0), "rows of dst");
  const int64_t num_requests = requests_of(cu_seq_lens, {kOp, "cu_seq_lens"});
  PagedRequests requests =
      validate_requests(kOp, block_table, seq_starts, num_requests, src_cache, num_tokens);
  requests.num_row_starts = num_requests + 1;
  requests.row_starts = readable_table(cu_seq_lens, {kOp, "cu_seq_lens"}, requests.num_row_starts);
  const float* scale_value = nullptr;
  if (kind != CacheKind::kAuto) {
    check_same_device(kOp, {{src_cache, "src_cache"}, {scale, "scale"}});
    scale_value = readable_scale(scale, {kOp, "scale"}, 1);
  }
  return {
      .requests = requests,
      .rows = validate_entry_rows(src_cache, src_arg, dst, dst_arg),
      .token_to_seq = readable_table(token_to_seq, {kOp, "token_to_seq"}, num_tokens),
      .dst_rows = dst.size(0),
      .row_elems = row_elems,
      .kind = kind,
      .dst_dtype = dtype,
      .scale = scale_value,
  };
}

}  // namespace kvops
