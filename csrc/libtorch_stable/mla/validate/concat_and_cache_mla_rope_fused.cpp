// Contract of concat_and_cache_mla_rope_fused (spec 6.3): every row count equals q_pe's, only
// positions may be longer; all floating tensors share q_pe's dtype.
// Called by cpu::concat_and_cache_mla_rope_fused.
#include "mla/validate.h"
#include "mla/validate/entries.h"

namespace kvops {

RopeFusedParams validate_concat_and_cache_mla_rope_fused(
    const Tensor& positions, const Tensor& q_pe, const Tensor& k_pe, const Tensor& kv_c,
    const Tensor& cos_sin_cache, bool is_neox, const Tensor& slot_mapping, const Tensor& kv_cache,
    const std::string& kv_cache_dtype, const Tensor& kv_cache_scale) {
  constexpr const char* kOp = "concat_and_cache_mla_rope_fused";
  CacheKind kind = parse_cache_kind(
      kv_cache_dtype, kOp,
      {CacheKind::kAuto, CacheKind::kFp8E4m3, CacheKind::kFp8E5m2, CacheKind::kFp8DsMla});
  // A layout for concat_and_cache_mla only; this operator takes it for e4m3, as vLLM does.
  if (kind == CacheKind::kFp8DsMla) kind = CacheKind::kFp8E4m3;
  check_same_device(
      kOp,
      {{q_pe, "q_pe"}, {positions, "positions"}, {kv_c, "kv_c"}, {cos_sin_cache, "cos_sin_cache"}});
  check_dim(q_pe, {kOp, "q_pe"}, 3);
  const int64_t tokens = q_pe.size(0);
  const int64_t rot = q_pe.size(2);
  if (rot % 2 != 0) {
    fail({kOp, "q_pe"}, "must have an even last dimension, got shape " + shape_text(q_pe));
  }
  check_shape(k_pe, {kOp, "k_pe"}, {tokens, rot});
  check_shape(kv_c, {kOp, "kv_c"}, {tokens, kAnySize});
  check_shape(slot_mapping, {kOp, "slot_mapping"}, {tokens});
  check_shape(cos_sin_cache, {kOp, "cos_sin_cache"}, {kAnySize, rot});
  check_dim(positions, {kOp, "positions"}, 1);
  check_rows(positions, {kOp, "positions"}, tokens);
  const MlaEntriesParams entries =
      validate_mla_entries({.op = kOp,
                            .kv_c = kv_c,
                            .k_pe = k_pe,
                            .kv_cache = kv_cache,
                            .slot_mapping = slot_mapping,
                            .kind = kind,
                            .scale = {kv_cache_scale, "kv_cache_scale"}});
  check_dtype(q_pe, {kOp, "q_pe"}, {entries.dtype});
  check_dtype(cos_sin_cache, {kOp, "cos_sin_cache"}, {entries.dtype});
  check_stride(q_pe, {kOp, "q_pe"}, 2, 1);
  check_stride(cos_sin_cache, {kOp, "cos_sin_cache"}, 1, 1);
  return {
      .entries = entries,
      .positions = readable_int64(positions, {kOp, "positions"}),
      .q_pe = writable(q_pe, {kOp, "q_pe"}),
      .k_pe = writable(k_pe, {kOp, "k_pe"}),
      .cos_sin = readable(cos_sin_cache, {kOp, "cos_sin_cache"}),
      .is_neox = is_neox,
      .max_positions = cos_sin_cache.size(0),
      .heads = q_pe.size(1),
      .rot_elems = rot,
      .q_token_stride_elems = q_pe.stride(0),
      .q_head_stride_elems = q_pe.stride(1),
      .cos_sin_stride_elems = cos_sin_cache.stride(0),
  };
}

}  // namespace kvops
