// reshape_and_cache_flash on CPU: one copied or converted row per (token, head), or per token
// where the heads of input and cache lie side by side.
// Registered as kvops::reshape_and_cache_flash for CPU tensors.
#include "cache/cpu/nvfp4.h"
#include "cache/cpu/plan.h"
#include "cache/ops.h"
#include "cache/validate.h"
#include "common/checked_mode.h"
#include "common/parallel.h"

namespace kvops::cpu {
namespace {

// How one of key and value is written.
struct RowPlan {
  CacheSide side;
  int64_t rows;  // per token
  int64_t row_elems;
  int64_t scale_stride;
  int64_t src_bytes;    // per element
  int64_t cache_bytes;  // per element
  RowConversion convert;
  Stores stores;
};

RowPlan plan_rows(const CacheSide& side, const CacheWriterParams& p) {
  const bool dense = side.src_head_stride == side.head_size && side.head_stride == side.head_size &&
                     p.scale_stride == 0;
  RowPlan plan{
      .side = side,
      .rows = dense ? 1 : p.heads,
      .row_elems = dense ? p.heads * side.head_size : side.head_size,
      .scale_stride = p.scale_stride,
      .src_bytes = element_bytes_of(p.dtype),
      .cache_bytes = stored_bytes_of(p.dtype, p.kind),
      .convert = store_conversion(p.dtype, p.kind),
      .stores = Stores::kCached,
  };
  const bool whole_lines = is_line_aligned(side.cache) &&
                           is_whole_lines(plan.row_elems * plan.cache_bytes) &&
                           is_whole_lines(side.block_stride * plan.cache_bytes) &&
                           is_whole_lines(side.offset_stride * plan.cache_bytes) &&
                           (dense || is_whole_lines(side.head_stride * plan.cache_bytes));
  plan.stores = stores_for(p, whole_lines);
  return plan;
}

void write_token(const RowPlan& plan, int64_t token, int64_t block, int64_t offset) noexcept {
  const CacheSide& s = plan.side;
  const char* src = s.src + token * s.src_token_stride * plan.src_bytes;
  char* dst = s.cache + (block * s.block_stride + offset * s.offset_stride) * plan.cache_bytes;
  for (int64_t row = 0; row < plan.rows; ++row) {
    const float scale = s.scale ? s.scale[row * plan.scale_stride] : 1.0f;
    plan.convert(src + row * s.src_head_stride * plan.src_bytes,
                 dst + row * s.head_stride * plan.cache_bytes, plan.row_elems, scale, plan.stores);
  }
}

}  // namespace

void reshape_and_cache_flash(const Tensor& key, const Tensor& value, Tensor& key_cache,
                             Tensor& value_cache, const Tensor& slot_mapping,
                             const std::string& kv_cache_dtype, const Tensor& k_scale,
                             const Tensor& v_scale) {
  if (is_nvfp4(kv_cache_dtype)) {
    const Nvfp4WriterParams p = validate_reshape_and_cache_nvfp4(
        key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale);
    check_slots({"reshape_and_cache_flash", "slot_mapping"}, p.slot_mapping, p.tokens, p.num_slots);
    write_nvfp4_pages(p);
    return;
  }
  const CacheWriterParams p = validate_reshape_and_cache_flash(
      key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale);
  check_slots({"reshape_and_cache_flash", "slot_mapping"}, p.slot_mapping, p.tokens, p.num_slots);
  const RowPlan keys = plan_rows(p.key, p);
  const RowPlan values = plan_rows(p.value, p);
  parallel_for(p.tokens, grain_tokens(p), [&](int64_t begin, int64_t end) noexcept {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t slot = p.slot_mapping[token];
      if (slot < 0 || slot >= p.num_slots) continue;
      write_token(keys, token, slot / p.block_size, slot % p.block_size);
      write_token(values, token, slot / p.block_size, slot % p.block_size);
    }
    finish_streaming();
  });
}

}  // namespace kvops::cpu
