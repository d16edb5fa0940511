// Attention of one sequence over one partition, for caches of element type T with x = kX.
// Called by paged_attention.cpp, which lists the combinations.
// A page of keys, and a row of values, is read once for all query heads of its KV head.
#pragma once

#include "attention/cpu/kernels.h"
#include "attention/cpu/kernels/logits.h"
#include "attention/cpu/kernels/softmax.h"
#include "attention/cpu/kernels/values.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

constexpr int kTileHeads = 4;
// Rows of logits start at different sets of the first-level cache.
constexpr int64_t kLogitsPitch = kMaxSlots + kLanes;

// On the stack of the working thread: about 70 KiB.
struct Workspace {
  alignas(64) float logits[kMaxUnitHeads * kLogitsPitch];
  alignas(64) float pattern[kMaxUnitHeads * kMaxHeadSize * (kLanes >= 4 ? kLanes / 4 : 1)];
  alignas(64) float distances[kMaxSlots];
  Pages pages;
};

inline void load_query(const PagedAttentionParams& p, int64_t seq, int64_t head, float* query) {
  const int64_t offset = seq * p.query_seq_stride + head * p.query_head_stride;
  const auto convert = [&](auto* from) {
    for (int64_t d = 0; d < p.head_size; ++d) query[d] = to_float(from[offset + d]);
  };
  switch (p.query_dtype) {
    case DType::kHalf:
      return convert(static_cast<const half_t*>(p.query));
    case DType::kBFloat16:
      return convert(static_cast<const bfloat16_t*>(p.query));
    default:
      return convert(static_cast<const float*>(p.query));
  }
}

inline void fill_distances(const Pages& pages, int64_t block_size, int64_t seq_len,
                           float* distances) {
  for (int64_t i = 0; i < pages.count; ++i) {
    const int64_t first = pages.page[i].first_token - seq_len + 1;
    for (int64_t t = 0; t < block_size; ++t) {
      distances[i * block_size + t] = static_cast<float>(first + t);
    }
  }
}

// Calls body<kHeads>(first) for each tile of at most 4 of `heads` heads.
template <class Body>
KVOPS_INLINE void for_head_tiles(int64_t heads, const Body& body) {
  for (int64_t first = 0; first < heads; first += kTileHeads) {
    switch (heads - first) {
      case 1:
        body.template operator()<1>(first);
        break;
      case 2:
        body.template operator()<2>(first);
        break;
      case 3:
        body.template operator()<3>(first);
        break;
      default:
        body.template operator()<kTileHeads>(first);
    }
  }
}

// Some query heads of one KV head.
struct Unit {
  int64_t kv_head;
  int64_t head;  // the first query head
  int64_t heads;
};

inline Unit unit_at(const PagedAttentionParams& p, const HeadUnits& units, int64_t index) {
  const int64_t group = p.num_heads / p.num_kv_heads;
  const int64_t kv_head = index / units.per_kv_head;
  const int64_t first = index % units.per_kv_head * units.heads;
  const int64_t heads = group - first < units.heads ? group - first : units.heads;
  return {kv_head, kv_head * group + first, heads};
}

template <class T, int kX>
void unit_logits(const PagedAttentionParams& p, int64_t seq, const Unit& unit, Workspace& work) {
  const int64_t per_head = pattern_elems<kX>(p.head_size);
  for (int64_t i = 0; i < unit.heads; ++i) {
    float query[kMaxHeadSize];
    load_query(p, seq, unit.head + i, query);
    const int64_t first = i / kTileHeads * kTileHeads;
    const int64_t tile_heads = unit.heads - first < kTileHeads ? unit.heads - first : kTileHeads;
    fill_pattern<kX>(query, p.head_size, static_cast<int>(tile_heads), static_cast<int>(i - first),
                     work.pattern + first * per_head);
  }
  const T* keys = static_cast<const T*>(p.key_cache) + unit.kv_head * p.key_head_stride;
  const T* values = static_cast<const T*>(p.value_cache) + unit.kv_head * p.value_head_stride;
  const Pages& pages = work.pages;
  for (int64_t i = 0; i < pages.count; ++i) {
    const int64_t next = i + 1 < pages.count ? i + 1 : i;
    for_head_tiles(unit.heads, [&]<int kHeads>(int64_t first) {
      const LogitsTile<T> tile = {
          .keys = keys + pages.page[i].key_offset,
          .next_keys = keys + pages.page[next].key_offset,
          .next_values = values + pages.page[i].value_offset,
          .pattern = work.pattern + first * per_head,
          .head_size = p.head_size,
          .block_size = p.block_size,
          .logits_pitch = kLogitsPitch,
      };
      float* logits = work.logits + first * kLogitsPitch + i * p.block_size;
      if (first == 0) {
        page_logits<T, kX, kHeads, true>(tile, logits);
      } else {
        page_logits<T, kX, kHeads, false>(tile, logits);
      }
    });
  }
}

// Dimensions of a tile: as many sums as keep the multiply-add units busy, within the registers.
constexpr int tile_dims(int heads) {
  constexpr int kScale = kLanes == 16 ? 2 : 1;
  return heads == 1 ? 8 : heads == 2 ? 4 * kScale : 2 * kScale;
}

// next_keys: keys of the KV head that comes next, null if it is the same one or there is none.
template <class T, int kWidth>
void unit_values(const PagedAttentionParams& p, const Unit& unit, const Workspace& work,
                 const T* next_keys, float* weighted_values) {
  const T* values = static_cast<const T*>(p.value_cache) + unit.kv_head * p.value_head_stride;
  for_head_tiles(unit.heads, [&]<int kHeads>(int64_t first) {
    constexpr int kDims = tile_dims(kHeads);
    for (int64_t dim = 0; dim < p.head_size; dim += kDims) {
      const int64_t offset = dim * p.block_size;
      const ValuesTile<T> tile = {
          .pages = &work.pages,
          .values = values + offset,
          .next_keys = next_keys != nullptr && first == 0 ? next_keys + offset : nullptr,
          .block_size = p.block_size,
          .weights = work.logits + first * kLogitsPitch,
          .weights_pitch = kLogitsPitch,
      };
      float* results = weighted_values + (unit.head + first) * p.head_size + dim;
      values_tile<T, kWidth, kHeads, kDims>(tile, results, p.head_size);
    }
  });
}

// Turns the logits of the unit's heads into weights.
template <class T>
void unit_weights(const PagedAttentionParams& p, const PartitionTask& task, const Unit& unit,
                  Workspace& work) {
  const float k_scale = p.k_scale != nullptr ? *p.k_scale : 1.0f;
  const bool has_slope = p.alibi_slopes != nullptr;
  for (int64_t i = 0; i < unit.heads; ++i) {
    const int64_t head = unit.head + i;
    const SoftmaxState state =
        softmax_weights(work.pages, p.block_size, p.scale * k_scale * kLoadFactor<T>,
                        has_slope ? p.alibi_slopes[head] : 0.0f,
                        has_slope ? work.distances : nullptr, work.logits + i * kLogitsPitch);
    task.max_logits[head] = state.max_logit;
    task.exp_sums[head] = state.exp_sum;
  }
}

template <class T, int kX>
void attend(const PagedAttentionParams& p, const PartitionTask& task) {
  Workspace work;
  const int64_t first_token = task.partition * kPartitionTokens;
  const int64_t partition_end = first_token + kPartitionTokens;
  const int64_t end_token = task.seq_len < partition_end ? task.seq_len : partition_end;
  for (int64_t index = task.unit_begin; index < task.unit_end; ++index) {
    const Unit unit = unit_at(p, task.units, index);
    // Under block sparsity units are single heads, each with pages of its own.
    if (p.sparse.active || index == task.unit_begin) {
      collect_pages(p, task.seq, task.seq_len, first_token, end_token, unit.head, work.pages);
      if (p.alibi_slopes != nullptr) {
        fill_distances(work.pages, p.block_size, task.seq_len, work.distances);
      }
    }
    unit_logits<T, kX>(p, task.seq, unit, work);
    unit_weights<T>(p, task, unit, work);
    const bool is_last = index + 1 == task.unit_end;
    const int64_t next = is_last ? unit.kv_head : unit_at(p, task.units, index + 1).kv_head;
    const T* next_keys = next == unit.kv_head
                             ? nullptr
                             : static_cast<const T*>(p.key_cache) + next * p.key_head_stride;
    if (kLanes == 16 && p.block_size % 16 == 0) {
      unit_values<T, kLanes>(p, unit, work, next_keys, task.weighted_values);
    } else {
      unit_values<T, kLanes == 16 ? 8 : kLanes>(p, unit, work, next_keys, task.weighted_values);
    }
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
