// reshape_and_cache on CPU: a page holds [head_size / unit][token][unit], so each run of tokens is
// transposed into it; keys in units of x elements, values element by element.
// Registered as kvops::reshape_and_cache for CPU tensors.
#include "cache/cpu/plan.h"
#include "cache/cpu/token_runs.h"
#include "cache/ops.h"
#include "cache/validate.h"
#include "common/checked_mode.h"
#include "common/parallel.h"

namespace kvops::cpu {
namespace {

// FP8 elements wait in a tile for their transposition: enough tokens to fill the cache lines of a
// page, enough elements that input is read in long stretches. It stays in L2.
constexpr int64_t kTileTokens = 64;
constexpr int64_t kTileElems = 1024;

// How one of key and value is written.
struct UnitPlan {
  CacheSide side;
  CacheKind kind;
  int64_t heads;
  int64_t scale_stride;
  int64_t src_bytes;    // per element
  int64_t cache_bytes;  // per element
  RowConversion convert;
  Transposition transpose;  // null: none for units of this size
  Stores full_group_stores;
};

Transposition transposition_of(int64_t unit_bytes) {
  const TransposeKernels& kernels = transpose_kernels();
  switch (unit_bytes) {
    case 1:
      return kernels.elements_of_1_byte;
    case 2:
      return kernels.elements_of_2_bytes;
    case 4:
      return kernels.elements_of_4_bytes;
    case 16:
      return kernels.elements_of_16_bytes;
    default:
      return nullptr;
  }
}

// Whether a full group, which is written in passes of one line per row, ends up as whole lines.
bool has_whole_lines(const CacheSide& side, int64_t cache_bytes) {
  const int64_t row_bytes = side.group_tokens * side.unit_elems * cache_bytes;
  return (row_bytes <= kCacheLineBytes || is_whole_lines(row_bytes)) &&
         is_line_aligned(side.cache) && is_whole_lines(side.group_stride * cache_bytes) &&
         is_whole_lines(side.block_stride * cache_bytes) &&
         is_whole_lines(side.head_stride * cache_bytes);
}

UnitPlan plan_units(const CacheSide& side, const CacheWriterParams& p) {
  const int64_t cache_bytes = stored_bytes_of(p.dtype, p.kind);
  return {
      .side = side,
      .kind = p.kind,
      .heads = p.heads,
      .scale_stride = p.scale_stride,
      .src_bytes = element_bytes_of(p.dtype),
      .cache_bytes = cache_bytes,
      .convert = store_conversion(p.dtype, p.kind),
      .transpose = transposition_of(side.unit_elems * cache_bytes),
      .full_group_stores = stores_for(p, has_whole_lines(side, cache_bytes)),
  };
}

float scale_of(const UnitPlan& plan, int64_t head) {
  return plan.side.scale ? plan.side.scale[head * plan.scale_stride] : 1.0f;
}

const char* source(const UnitPlan& plan, int64_t token, int64_t head, int64_t elem) {
  const CacheSide& s = plan.side;
  return s.src + (token * s.src_token_stride + head * s.src_head_stride + elem) * plan.src_bytes;
}

// `elem` is a multiple of unit_elems.
char* destination(const UnitPlan& plan, const TokenRun& run, int64_t head, int64_t elem) {
  const CacheSide& s = plan.side;
  return s.cache +
         (run.block * s.block_stride + head * s.head_stride +
          run.offset / s.group_tokens * s.group_stride +
          run.offset % s.group_tokens * s.offset_stride + elem / s.unit_elems * s.unit_stride) *
             plan.cache_bytes;
}

// Unusual x: one unit at a time.
void write_units(const UnitPlan& plan, const TokenRun& run) noexcept {
  const CacheSide& s = plan.side;
  for (int64_t i = 0; i < run.count; ++i) {
    const TokenRun token{run.token + i, 1, run.block, run.offset + i};
    for (int64_t head = 0; head < plan.heads; ++head) {
      for (int64_t elem = 0; elem < s.head_size; elem += s.unit_elems) {
        plan.convert(source(plan, token.token, head, elem), destination(plan, token, head, elem),
                     s.unit_elems, scale_of(plan, head), Stores::kCached);
      }
    }
  }
}

// Elements as they are: straight from the input into the page.
void write_directly(const UnitPlan& plan, const TokenRun& run, Stores stores) noexcept {
  const CacheSide& s = plan.side;
  for (int64_t head = 0; head < plan.heads; ++head) {
    plan.transpose(source(plan, run.token, head, 0), s.src_token_stride * plan.src_bytes, run.count,
                   s.head_size / s.unit_elems, destination(plan, run, head, 0),
                   s.unit_stride * plan.cache_bytes, stores);
  }
}

// Heads [head, head + heads) x elements [elem, elem + elems): what a tile has of every token.
struct Box {
  int64_t head;
  int64_t heads;
  int64_t elem;
  int64_t elems;
};

// FP8, at most kTileTokens tokens: converts into a tile, then transposes that.
void write_tile(const UnitPlan& plan, const TokenRun& run, const Box& box, Stores stores) noexcept {
  alignas(kCacheLineBytes) char tile[kTileTokens * kTileElems];
  for (int64_t i = 0; i < run.count; ++i) {
    for (int64_t h = 0; h < box.heads; ++h) {
      plan.convert(source(plan, run.token + i, box.head + h, box.elem),
                   tile + i * kTileElems + h * box.elems, box.elems, scale_of(plan, box.head + h),
                   Stores::kCached);
    }
  }
  for (int64_t h = 0; h < box.heads; ++h) {
    plan.transpose(tile + h * box.elems, kTileElems, run.count, box.elems / plan.side.unit_elems,
                   destination(plan, run, box.head + h, box.elem), plan.side.unit_stride, stores);
  }
}

void write_tiles(const UnitPlan& plan, const TokenRun& run, Stores stores) noexcept {
  const int64_t head_size = plan.side.head_size;
  const int64_t tile_heads = head_size > kTileElems ? 1 : kTileElems / head_size;
  for (int64_t i = 0; i < run.count; i += kTileTokens) {
    const TokenRun tokens{run.token + i, smaller(kTileTokens, run.count - i), run.block,
                          run.offset + i};
    for (int64_t head = 0; head < plan.heads; head += tile_heads) {
      const int64_t heads = smaller(tile_heads, plan.heads - head);
      for (int64_t elem = 0; elem < head_size; elem += kTileElems) {
        const int64_t elems = smaller(kTileElems, head_size - elem);
        write_tile(plan, tokens, {head, heads, elem, elems}, stores);
      }
    }
  }
}

void write_group(const UnitPlan& plan, const TokenRun& run) noexcept {
  const bool full_group = run.count == plan.side.group_tokens;
  const Stores stores = full_group ? plan.full_group_stores : Stores::kCached;
  if (plan.transpose == nullptr) {
    write_units(plan, run);
  } else if (plan.kind == CacheKind::kAuto) {
    write_directly(plan, run, stores);
  } else {
    write_tiles(plan, run, stores);
  }
}

void write_run(const UnitPlan& plan, const TokenRun& run) noexcept {
  if (plan.side.head_size == 0) return;
  for (int64_t i = 0; i < run.count;) {
    const int64_t offset = run.offset + i;
    const int64_t room = plan.side.group_tokens - offset % plan.side.group_tokens;
    const int64_t count = smaller(room, run.count - i);
    write_group(plan, {run.token + i, count, run.block, offset});
    i += count;
  }
}

}  // namespace

void reshape_and_cache(const Tensor& key, const Tensor& value, Tensor& key_cache,
                       Tensor& value_cache, const Tensor& slot_mapping,
                       const std::string& kv_cache_dtype, const Tensor& k_scale,
                       const Tensor& v_scale, bool interleaved_v) {
  const CacheWriterParams p =
      validate_reshape_and_cache(key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype,
                                 k_scale, v_scale, interleaved_v);
  check_slots({"reshape_and_cache", "slot_mapping"}, p.slot_mapping, p.tokens, p.num_slots);
  const UnitPlan keys = plan_units(p.key, p);
  const UnitPlan values = plan_units(p.value, p);
  parallel_for(p.tokens, grain_tokens(p), [&](int64_t begin, int64_t end) noexcept {
    for_each_run(p, begin, end, [&](const TokenRun& run) noexcept {
      write_run(keys, run);
      write_run(values, run);
    });
    finish_streaming();
  });
}

}  // namespace kvops::cpu
