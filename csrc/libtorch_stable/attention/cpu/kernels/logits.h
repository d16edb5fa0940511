// <query, key> for the tokens of one page and a few heads of one KV head.
// Called by attend.h per page. A page of keys is [head_size / x][block_size][x].
// Vectors are loaded in memory order: kLanes elements are one or more tokens' x elements (or part
// of one token's), so the query is kept as a pattern that repeats in the same way.
#pragma once

#include "attention/cpu/kernels/simd.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

// How x elements of a token lie in vectors.
template <int kX>
struct KeyShape {
  static constexpr int kPartials = kX < kLanes ? kX : kLanes;  // lanes of a vector for one token
  static constexpr int kParts = kX / kPartials;                // vectors for one token
  static constexpr int kTokens = kLanes / kPartials;           // tokens of one vector
};

// Elements of the query pattern of one head.
template <int kX>
constexpr int64_t pattern_elems(int64_t head_size) {
  return head_size * KeyShape<kX>::kTokens;
}

// Writes the pattern of head `head` of a tile of `tile_heads`: [chunk and part][head][lane].
template <int kX>
void fill_pattern(const float* query, int64_t head_size, int tile_heads, int head, float* pattern) {
  using Shape = KeyShape<kX>;
  for (int64_t part = 0; part < head_size / Shape::kPartials; ++part) {
    float* to = pattern + (part * tile_heads + head) * kLanes;
    for (int lane = 0; lane < kLanes; ++lane) {
      to[lane] = query[part * Shape::kPartials + lane % Shape::kPartials];
    }
  }
}

template <class T>
struct LogitsTile {
  const T* keys;         // the page
  const T* next_keys;    // a page to prefetch while this one is read
  const T* next_values;  // likewise; all pages have the same size
  const float* pattern;
  int64_t head_size;
  int64_t block_size;
  int64_t logits_pitch;  // from head to head
};

// kVectors * kTokens consecutive tokens, the first of them `token`, of kHeads heads.
template <class T, int kX, int kHeads, int kVectors, bool kPrefetch>
KVOPS_INLINE void logits_tile(const LogitsTile<T>& tile, int64_t token, float* logits) {
  using Shape = KeyShape<kX>;
  using Vector = Floats<kLanes>;
  constexpr int kSums = round_up_to_power_of_2(kHeads) * kVectors;
  Vector sums[kSums] = {};
  const float* pattern = tile.pattern;
  int64_t offset = token * kX;
  for (int64_t chunk = 0; chunk < tile.head_size; chunk += kX) {
    if constexpr (kPrefetch) {
      constexpr int64_t kBytes = kVectors * Shape::kTokens * kX * sizeof(T);
      prefetch<kBytes>(tile.next_keys + offset);
      prefetch<kBytes>(tile.next_values + offset);
    }
#pragma GCC unroll 4
    for (int part = 0; part < Shape::kParts; ++part) {
      Vector key[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        key[v] = load_floats<kLanes>(tile.keys + offset + v * Shape::kTokens * kX + part * kLanes);
      }
#pragma GCC unroll 4
      for (int head = 0; head < kHeads; ++head) {
        const Vector query = load<kLanes>(pattern + head * kLanes);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[head * kVectors + v] += key[v] * query;
      }
      pattern += kHeads * kLanes;
    }
    offset += tile.block_size * kX;
  }
  sum_runs<Shape::kPartials, kSums>(sums);
  store_rows<kHeads, kVectors * Shape::kTokens>(sums, logits + token, tile.logits_pitch);
}

// All tokens of a page. kVectors keeps the multiply-add units busy within the registers there are.
template <class T, int kX, int kHeads, bool kPrefetch>
void page_logits(const LogitsTile<T>& tile, float* logits) {
  constexpr int kVectors = kLanes == 16 || kHeads <= 2 ? 4 : 2;
  constexpr int kTokens = KeyShape<kX>::kTokens;
  int64_t token = 0;
  for (; token + kVectors * kTokens <= tile.block_size; token += kVectors * kTokens) {
    logits_tile<T, kX, kHeads, kVectors, kPrefetch>(tile, token, logits);
  }
  // Block sizes are multiples of 8 tokens, so two vectors always fit.
  for (; token < tile.block_size; token += 2 * kTokens) {
    logits_tile<T, kX, kHeads, 2, kPrefetch>(tile, token, logits);
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
