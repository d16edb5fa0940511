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

constexpr int round_up_to_power_of_2(int n) {
  return n <= 1 ? 1 : 2 * round_up_to_power_of_2((n + 1) / 2);
}

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

struct LogitsTile {
  int64_t chunks;           // head_size / x
  int64_t chunk_stride;     // block_size * x
  const float* pattern;
  int64_t pitch;            // of logits, from head to head
};

// kVectors * kTokens consecutive tokens of kHeads heads.
template <class T, int kX, int kHeads, int kVectors>
KVOPS_INLINE void logits_tile(const LogitsTile& tile, const T* keys, float* logits) {
  using Shape = KeyShape<kX>;
  using Vector = Floats<kLanes>;
  constexpr int kSums = round_up_to_power_of_2(kHeads) * kVectors;
  Vector sums[kSums] = {};
  const float* pattern = tile.pattern;
  for (int64_t chunk = 0; chunk < tile.chunks; ++chunk) {
#pragma GCC unroll 4
    for (int part = 0; part < Shape::kParts; ++part) {
      Vector key[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        key[v] = load_floats<kLanes>(keys + v * Shape::kTokens * kX + part * kLanes);
      }
#pragma GCC unroll 4
      for (int head = 0; head < kHeads; ++head) {
        const Vector query = load<kLanes>(pattern + head * kLanes);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[head * kVectors + v] += key[v] * query;
      }
      pattern += kHeads * kLanes;
    }
    keys += tile.chunk_stride;
  }
  sum_runs<Shape::kPartials>(sums);
  constexpr int kTokens = kVectors * Shape::kTokens;
  float ordered[kSums * kLanes];
  __builtin_memcpy(ordered, sums, sizeof(ordered));
#pragma GCC unroll 4
  for (int head = 0; head < kHeads; ++head) {
    __builtin_memcpy(logits + head * tile.pitch, ordered + head * kTokens, kTokens * sizeof(float));
  }
}

// All tokens of a page. kVectors keeps the multiply-add units busy within the registers there are.
template <class T, int kX, int kHeads>
void page_logits(const LogitsTile& tile, const T* keys, int64_t block_size, float* logits) {
  constexpr int kVectors = kLanes == 16 || kHeads <= 2 ? 4 : 2;
  constexpr int kTokens = KeyShape<kX>::kTokens;
  int64_t token = 0;
  for (; token + kVectors * kTokens <= block_size; token += kVectors * kTokens) {
    logits_tile<T, kX, kHeads, kVectors>(tile, keys + token * kX, logits + token);
  }
  // Block sizes are multiples of 8 tokens, so two vectors always fit.
  for (; token < block_size; token += 2 * kTokens) {
    logits_tile<T, kX, kHeads, 2>(tile, keys + token * kX, logits + token);
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
