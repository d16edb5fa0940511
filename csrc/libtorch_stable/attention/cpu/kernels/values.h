// sum over tokens of weight * value, for a few heads of one KV head and the pages of a partition.
// Called by attend.h. A page of values is [head_size][block_size]: tokens of a dimension are
// contiguous, so vectors run over tokens and are added up only after the last page.
// Values of tokens outside of partition or sequence are never used: they may be NaN.
#pragma once

#include "attention/cpu/kernels/pages.h"
#include "attention/cpu/kernels/simd.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

template <class T>
struct ValuesTile {
  const Pages* pages;
  const T* values;     // of the KV head, at the tile's first dimension
  const T* next_keys;  // same place in the pages of keys to prefetch, or null
  int64_t block_size;
  const float* weights;
  int64_t weights_pitch;  // from head to head
};

template <int kWidth>
KVOPS_INLINE Floats<kWidth> keep_tokens(Floats<kWidth> values, int64_t begin, int64_t end) {
  Ints<kWidth> lane;
  for (int i = 0; i < kWidth; ++i) lane[i] = i;
  const Ints<kWidth> kept =
      (lane >= static_cast<int32_t>(begin)) & (lane < static_cast<int32_t>(end));
  return select<Floats<kWidth>>(kept, values, Floats<kWidth>{});
}

// Adds tokens [begin, end) of one page.
template <class T, int kWidth, int kHeads, int kDims, bool kWhole>
KVOPS_INLINE void add_page(const ValuesTile<T>& tile, const T* values, const T* next_keys,
                           const float* weights, int64_t begin, int64_t end, Floats<kWidth>* sums) {
  using Vector = Floats<kWidth>;
  for (int64_t token = begin / kWidth * kWidth; token < end; token += kWidth) {
    if (next_keys != nullptr) prefetch<kDims * kWidth * sizeof(T)>(next_keys + token * kDims);
    Vector weight[kHeads];
#pragma GCC unroll 4
    for (int head = 0; head < kHeads; ++head) {
      weight[head] = load<kWidth>(weights + head * tile.weights_pitch + token);
    }
#pragma GCC unroll 8
    for (int dim = 0; dim < kDims; ++dim) {
      Vector value = load_floats<kWidth>(values + dim * tile.block_size + token);
      if constexpr (!kWhole) value = keep_tokens<kWidth>(value, begin - token, end - token);
#pragma GCC unroll 4
      for (int head = 0; head < kHeads; ++head) sums[head * kDims + dim] += weight[head] * value;
    }
  }
}

// kDims dimensions of kHeads heads; results[head * results_pitch + dim].
template <class T, int kWidth, int kHeads, int kDims>
void values_tile(const ValuesTile<T>& tile, float* results, int64_t results_pitch) {
  constexpr int kSums = round_up_to_power_of_2(kHeads) * kDims;
  Floats<kWidth> sums[kSums] = {};
  const Pages& pages = *tile.pages;
  const float* weights = tile.weights;
  for (int64_t i = 0; i < pages.count; ++i) {
    const Page& page = pages.page[i];
    const T* values = tile.values + page.value_offset;
    const T* next = tile.next_keys != nullptr ? tile.next_keys + page.key_offset : nullptr;
    if (page.begin == 0 && page.end == tile.block_size) [[likely]] {
      add_page<T, kWidth, kHeads, kDims, true>(tile, values, next, weights, 0, tile.block_size,
                                               sums);
    } else {
      add_page<T, kWidth, kHeads, kDims, false>(tile, values, next, weights, page.begin, page.end,
                                                sums);
    }
    weights += tile.block_size;
  }
  sum_runs<kWidth, kSums>(sums);
  store_rows<kHeads, kDims>(sums, results, results_pitch);
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
