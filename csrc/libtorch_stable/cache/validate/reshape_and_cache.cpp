// Contract of reshape_and_cache (spec 5.1; wider than vLLM: blocks and heads of any stride).
// Called by cpu::reshape_and_cache and cuda::reshape_and_cache.
#include "cache/validate.h"
#include "cache/validate/cache_writer.h"
#include "common/checks.h"

namespace kvops {
namespace {

constexpr const char* kOp = "reshape_and_cache";

void set_cache_layout(CacheSide& side, const Tensor& cache, int64_t head_size, int64_t group_tokens,
                      int64_t unit_elems) {
  side.head_size = head_size;
  side.group_tokens = group_tokens;
  side.group_stride = group_tokens * head_size;
  side.block_stride = cache.stride(0);
  side.head_stride = cache.stride(1);
  side.offset_stride = unit_elems;
  side.unit_stride = group_tokens * unit_elems;
  side.unit_elems = unit_elems;
}

}  // namespace

CacheWriterParams validate_reshape_and_cache(const Tensor& key, const Tensor& value,
                                             const Tensor& key_cache, const Tensor& value_cache,
                                             const Tensor& slot_mapping,
                                             const std::string& kv_cache_dtype,
                                             const Tensor& k_scale, const Tensor& v_scale,
                                             bool interleaved_v) {
  const CacheKind kind = parse_writer_kind(kv_cache_dtype, kOp, false);
  check_dim(key, {kOp, "key"}, 3);
  const int64_t heads = key.size(1);
  check_shape(value, {kOp, "value"}, {kAnySize, heads, key.size(2)});
  check_dim(key_cache, {kOp, "key_cache"}, 5);
  const int64_t blocks = key_cache.size(0);
  const int64_t block_size = key_cache.size(3);
  const int64_t x = key_cache.size(4);
  if (x == 0)
    fail({kOp, "key_cache"},
         "must not be empty in dimension 4, got shape " + shape_text(key_cache));
  if (interleaved_v && block_size % x != 0) {
    fail({kOp, "key_cache"},
         "must have a block size that is a multiple of x for interleaved_v, got shape " +
             shape_text(key_cache));
  }
  // A head that x does not divide loses its remainder if the shapes of both caches say so.
  const int64_t chunks = key.size(2) / x;
  const int64_t head_size = chunks * x;
  check_shape(key_cache, {kOp, "key_cache"}, {blocks, heads, chunks, block_size, x});
  check_shape(value_cache, {kOp, "value_cache"}, {blocks, heads, head_size, block_size});
  check_dense_from(key_cache, {kOp, "key_cache"}, 2);
  check_dense_from(value_cache, {kOp, "value_cache"}, 2);
  CacheWriterParams p = validate_cache_writer(
      kOp, {key, value, key_cache, value_cache, slot_mapping, k_scale, v_scale}, kind, 1);
  p.num_slots = blocks * block_size;
  p.block_size = block_size;
  set_cache_layout(p.key, key_cache, head_size, block_size, x);
  set_cache_layout(p.value, value_cache, head_size, interleaved_v ? x : block_size, 1);
  return p;
}

}  // namespace kvops
