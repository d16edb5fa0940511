// Contract of reshape_and_cache_flash with the kinds "nvfp4" and "nvfp4_linear" (spec 5.3; wider
// than vLLM: float32 too, and each cache has its own head size and order of heads and tokens).
// Called by the CPU and the CUDA reshape_and_cache_flash, where is_nvfp4() says so.
#include "cache/nvfp4.h"
#include "cache/validate.h"
#include "cache/validate/cache_writer.h"
#include "common/checks.h"

namespace kvops {
namespace {

constexpr const char* kOp = "reshape_and_cache_flash";

// Bytes of data and scales of one head of one token.
int64_t entry_bytes(int64_t head_size) {
  return head_size / kNvfp4GroupElems * (kNvfp4GroupBytes + 1);
}

void check_head_size(const Tensor& rows, Arg arg, bool scales_in_tiles) {
  const int64_t unit = scales_in_tiles ? 4 * kNvfp4GroupElems : kNvfp4GroupElems;
  if (rows.size(2) % unit != 0) {
    fail(arg, "must have a head size that is a multiple of " + std::to_string(unit) +
                  (scales_in_tiles ? ", as nvfp4 stores the scales of values in tiles" : "") +
                  ", got shape " + shape_text(rows));
  }
}

// The stride of a dimension, if it has any to speak of, else the stride that it should have.
bool has_stride(const Tensor& tensor, int64_t dim, int64_t stride) {
  return tensor.size(dim) <= 1 || tensor.stride(dim) == stride;
}

// A page has no gaps: all of a token's heads side by side, or all of a head's tokens. Where both
// are true, they are the same bytes.
bool has_heads_side_by_side(const Tensor& cache, Arg arg) {
  const int64_t entry = cache.size(3);
  check_stride(cache, arg, 3, 1);
  if (has_stride(cache, 2, entry) && has_stride(cache, 1, cache.size(2) * entry)) return true;
  if (has_stride(cache, 1, entry) && has_stride(cache, 2, cache.size(1) * entry)) return false;
  fail(arg, "must have pages without gaps, strides [" + std::to_string(cache.size(2) * entry) +
                ", " + std::to_string(entry) + "] or [" + std::to_string(entry) + ", " +
                std::to_string(cache.size(1) * entry) + "] in dimensions 1 and 2, got [" +
                std::to_string(cache.stride(1)) + ", " + std::to_string(cache.stride(2)) + "]");
}

Nvfp4Side nvfp4_side(const CacheSide& side, const Tensor& rows, const Tensor& cache, Arg cache_arg,
                     bool scales_in_tiles) {
  const int64_t block_size = cache.size(1);
  const int64_t heads = cache.size(2);
  const int64_t groups = rows.size(2) / kNvfp4GroupElems;
  const bool heads_side_by_side = has_heads_side_by_side(cache, cache_arg);
  const int64_t offset_stride = heads_side_by_side ? heads * groups : groups;
  const int64_t head_stride = heads_side_by_side ? groups : block_size * groups;
  return {
      .src = side.src,
      .scale = side.scale,
      .cache = reinterpret_cast<uint8_t*>(side.cache),
      .head_size = rows.size(2),
      .src_token_stride = side.src_token_stride,
      .src_head_stride = side.src_head_stride,
      .block_stride = cache.stride(0),
      .data_offset_stride = offset_stride * kNvfp4GroupBytes,
      .data_head_stride = head_stride * kNvfp4GroupBytes,
      .scales_start = heads * block_size * groups * kNvfp4GroupBytes,
      .scales_offset_stride = offset_stride,
      .scales_head_stride = head_stride,
      .scales_in_tiles = scales_in_tiles,
  };
}

}  // namespace

bool is_nvfp4(const std::string& kv_cache_dtype) {
  return kv_cache_dtype == "nvfp4" || kv_cache_dtype == "nvfp4_linear";
}

Nvfp4WriterParams validate_reshape_and_cache_nvfp4(const Tensor& key, const Tensor& value,
                                                   const Tensor& key_cache,
                                                   const Tensor& value_cache,
                                                   const Tensor& slot_mapping,
                                                   const std::string& kv_cache_dtype,
                                                   const Tensor& k_scale, const Tensor& v_scale) {
  const CacheKind kind = parse_writer_kind(kv_cache_dtype, kOp, true);
  const bool in_tiles = kind == CacheKind::kNvfp4;
  check_dim(key, {kOp, "key"}, 3);
  const int64_t heads = key.size(1);
  check_shape(value, {kOp, "value"}, {kAnySize, heads, kAnySize});
  check_head_size(key, {kOp, "key"}, false);
  check_head_size(value, {kOp, "value"}, in_tiles);
  check_shape(key_cache, {kOp, "key_cache"}, {kAnySize, kAnySize, heads, entry_bytes(key.size(2))});
  const int64_t blocks = key_cache.size(0);
  const int64_t block_size = key_cache.size(1);
  check_shape(value_cache, {kOp, "value_cache"},
              {blocks, block_size, heads, entry_bytes(value.size(2))});
  if (in_tiles && block_size % 4 != 0) {
    fail({kOp, "value_cache"}, "must have a block size that is a multiple of 4, as nvfp4 stores " +
                                   std::string("the scales of values in tiles, got shape ") +
                                   shape_text(value_cache));
  }
  const CacheWriterParams p = validate_cache_writer(
      kOp, {key, value, key_cache, value_cache, slot_mapping, k_scale, v_scale}, kind, 1);
  return {
      .key = nvfp4_side(p.key, key, key_cache, {kOp, "key_cache"}, false),
      .value = nvfp4_side(p.value, value, value_cache, {kOp, "value_cache"}, in_tiles),
      .slot_mapping = p.slot_mapping,
      .dtype = p.dtype,
      .tokens = p.tokens,
      .heads = heads,
      .num_slots = blocks * block_size,
      .block_size = block_size,
  };
}

}  // namespace kvops
