// Shared part of the contract of the cache writers (spec 4.1, 4.2, 4.6, 5.1, 5.2).
// Called by validate_reshape_and_cache and validate_reshape_and_cache_flash.
#include "cache/validate/cache_writer.h"

#include "common/checks.h"

namespace kvops {
namespace {

void check_rows(const Tensor& rows, Arg arg, int64_t tokens) {
  if (rows.size(0) < tokens) {
    fail(arg, "must have a row for each of the " + std::to_string(tokens) +
                  " slots in slot_mapping, got shape " + shape_text(rows));
  }
}

CacheSide writer_side(const Tensor& src, Arg src_arg, const Tensor& cache, Arg cache_arg) {
  check_stride(src, src_arg, 2, 1);
  CacheSide side{};
  side.src = static_cast<const char*>(readable(src, src_arg));
  side.cache = static_cast<char*>(writable(cache, cache_arg));
  side.src_token_stride = src.stride(0);
  side.src_head_stride = src.stride(1);
  return side;
}

}  // namespace

CacheKind parse_writer_kind(const std::string& text, const char* op, bool allow_nvfp4) {
  const CacheKind kind =
      allow_nvfp4
          ? parse_cache_kind(text, op,
                             {CacheKind::kAuto, CacheKind::kFp8E4m3, CacheKind::kFp8E5m2,
                              CacheKind::kFp8DsMla, CacheKind::kNvfp4, CacheKind::kNvfp4Linear})
          : parse_cache_kind(
                text, op,
                {CacheKind::kAuto, CacheKind::kFp8E4m3, CacheKind::kFp8E5m2, CacheKind::kFp8DsMla});
  return kind == CacheKind::kFp8DsMla ? CacheKind::kFp8E4m3 : kind;
}

CacheWriterParams validate_cache_writer(const char* op, const CacheWriterTensors& t, CacheKind kind,
                                        int64_t scales) {
  check_same_device(op, {{t.key, "key"},
                         {t.value, "value"},
                         {t.key_cache, "key_cache"},
                         {t.value_cache, "value_cache"},
                         {t.slot_mapping, "slot_mapping"}});
  check_dim(t.slot_mapping, {op, "slot_mapping"}, 1);
  const int64_t tokens = t.slot_mapping.size(0);
  check_rows(t.key, {op, "key"}, tokens);
  check_rows(t.value, {op, "value"}, tokens);
  const DType dtype =
      check_dtype(t.key, {op, "key"}, {DType::kHalf, DType::kBFloat16, DType::kFloat});
  check_dtype(t.value, {op, "value"}, {dtype});
  check_cache_dtype(t.key_cache, {op, "key_cache"}, kind, dtype);
  check_cache_dtype(t.value_cache, {op, "value_cache"}, kind, dtype);
  CacheWriterParams p{};
  p.key = writer_side(t.key, {op, "key"}, t.key_cache, {op, "key_cache"});
  p.value = writer_side(t.value, {op, "value"}, t.value_cache, {op, "value_cache"});
  p.slot_mapping = readable_int64(t.slot_mapping, {op, "slot_mapping"});
  p.dtype = dtype;
  p.kind = kind;
  p.tokens = tokens;
  p.heads = t.key.size(1);
  p.scale_stride = scales > 1 ? 1 : 0;
  // Only FP8 reads the scales: "auto" is called with whatever is at hand.
  if (kind != CacheKind::kAuto) {
    check_same_device(op, {{t.key, "key"}, {t.k_scale, "k_scale"}, {t.v_scale, "v_scale"}});
    p.key.scale = readable_scale(t.k_scale, {op, "k_scale"}, scales);
    p.value.scale = readable_scale(t.v_scale, {op, "v_scale"}, scales);
  }
  return p;
}

}  // namespace kvops
