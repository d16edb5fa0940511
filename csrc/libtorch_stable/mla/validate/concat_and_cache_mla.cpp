// Contract of concat_and_cache_mla (spec 6.1): kv_c and k_pe may have more rows than there are
// tokens (graph padding), never fewer.
// Called by cpu::concat_and_cache_mla; filled before the first byte is written.
#include "mla/validate.h"
#include "mla/validate/entries.h"

namespace kvops {

MlaEntriesParams validate_concat_and_cache_mla(const Tensor& kv_c, const Tensor& k_pe,
                                               const Tensor& kv_cache, const Tensor& slot_mapping,
                                               const std::string& kv_cache_dtype,
                                               const Tensor& scale, bool skip_scale) {
  constexpr const char* kOp = "concat_and_cache_mla";
  const CacheKind kind =
      parse_cache_kind(kv_cache_dtype, kOp,
                       {CacheKind::kAuto, CacheKind::kFp8E4m3, CacheKind::kFp8E5m2,
                        CacheKind::kFp8DsMla, CacheKind::kFp8DsMlaPow2});
  const MlaEntriesParams params = validate_mla_entries({.op = kOp,
                                                        .kv_c = kv_c,
                                                        .k_pe = k_pe,
                                                        .kv_cache = kv_cache,
                                                        .slot_mapping = slot_mapping,
                                                        .kind = kind,
                                                        .scale = {scale, "scale"},
                                                        .skip_scale = skip_scale});
  check_rows(kv_c, {kOp, "kv_c"}, params.tokens);
  check_rows(k_pe, {kOp, "k_pe"}, params.tokens);
  return params;
}

}  // namespace kvops
