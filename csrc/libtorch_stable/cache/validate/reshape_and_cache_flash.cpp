// Contract of reshape_and_cache_flash (spec 5.2; wider than vLLM: each cache has its own strides,
// and values may have a head size of their own).
// Called by cpu::reshape_and_cache_flash and cuda::reshape_and_cache_flash.
#include "cache/validate.h"
#include "cache/validate/cache_writer.h"
#include "common/checks.h"

namespace kvops {
namespace {

constexpr const char* kOp = "reshape_and_cache_flash";

bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t i = 0; i < a.dim(); ++i) {
    if (a.size(i) != b.size(i)) return false;
  }
  return true;
}

// For "auto" too, as in vLLM: callers pass scales of the same form whatever the kind.
void check_scale_shapes(const Tensor& k_scale, const Tensor& v_scale, int64_t heads) {
  if (!same_shape(k_scale, v_scale)) {
    fail({kOp, "v_scale"}, "must have the same shape as k_scale, " + shape_text(k_scale) +
                               ", got " + shape_text(v_scale));
  }
  if (k_scale.numel() != 1 && k_scale.numel() != heads) {
    fail({kOp, "k_scale"}, "must have one element or one for each of the " + std::to_string(heads) +
                               " heads, got shape " + shape_text(k_scale));
  }
}

void set_cache_layout(CacheSide& side, const Tensor& cache) {
  side.head_size = cache.size(3);
  side.block_stride = cache.stride(0);
  side.group_tokens = cache.size(1);
  side.group_stride = 0;
  side.offset_stride = cache.stride(1);
  side.head_stride = cache.stride(2);
  side.unit_stride = cache.size(3);
  side.unit_elems = cache.size(3);
}

}  // namespace

CacheWriterParams validate_reshape_and_cache_flash(const Tensor& key, const Tensor& value,
                                                   const Tensor& key_cache,
                                                   const Tensor& value_cache,
                                                   const Tensor& slot_mapping,
                                                   const std::string& kv_cache_dtype,
                                                   const Tensor& k_scale, const Tensor& v_scale) {
  const CacheKind kind = parse_writer_kind(kv_cache_dtype, kOp, true);
  check_dim(key, {kOp, "key"}, 3);
  const int64_t heads = key.size(1);
  check_shape(value, {kOp, "value"}, {kAnySize, heads, kAnySize});
  check_shape(key_cache, {kOp, "key_cache"}, {kAnySize, kAnySize, heads, key.size(2)});
  const int64_t blocks = key_cache.size(0);
  const int64_t block_size = key_cache.size(1);
  check_shape(value_cache, {kOp, "value_cache"}, {blocks, block_size, heads, value.size(2)});
  check_stride(key_cache, {kOp, "key_cache"}, 3, 1);
  check_stride(value_cache, {kOp, "value_cache"}, 3, 1);
  check_scale_shapes(k_scale, v_scale, heads);
  CacheWriterParams p = validate_cache_writer(
      kOp, {key, value, key_cache, value_cache, slot_mapping, k_scale, v_scale}, kind,
      k_scale.numel());
  p.num_slots = blocks * block_size;
  p.block_size = block_size;
  set_cache_layout(p.key, key_cache);
  set_cache_layout(p.value, value_cache);
  return p;
}

}  // namespace kvops
