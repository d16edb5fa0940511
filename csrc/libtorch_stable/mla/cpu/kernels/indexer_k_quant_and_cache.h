// Quantises indexer keys in tiles of 128: within a block all e4m3 rows, then all float scales.
// Called by cpu::indexer_k_quant_and_cache.
// The scales of a block start at byte block_size * head_elems, at any alignment.
#pragma once

#include <cstdint>

#include "mla/cpu/kernels/quantize_tile.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

inline float indexer_scale(float amax) {
  constexpr float kMinAmax = 1e-4f;
  return (amax > kMinAmax ? amax : kMinAmax) / kE4m3Max;
}

template <class ScaleOf>
inline void quantize_keys(const IndexerQuantParams& p, int64_t begin, int64_t end,
                          const ScaleOf& scale_of) {
  const int64_t tiles_per_token = p.head_elems / kTileElems;
  Tile tiles[kMaxTiles];
  int64_t count = 0;
  for (int64_t token = begin; token < end; ++token) {
    const int64_t slot = p.slot_mapping[token];
    if (slot < 0 || slot >= p.num_slots) continue;
    const int64_t first_tile = slot % p.block_size * tiles_per_token;
    const bfloat16_t* k = static_cast<const bfloat16_t*>(p.k) + token * p.k_stride_elems;
    char* block = p.kv_cache + slot / p.block_size * p.block_stride_bytes;
    char* scales = block + p.block_size * p.head_elems;
    for (int64_t tile = 0; tile < tiles_per_token; ++tile) {
      char* bytes = block + (first_tile + tile) * kTileElems;
      __builtin_prefetch(bytes, 1);
      __builtin_prefetch(bytes + kTileElems - 1, 1);
      tiles[count++] = {.in = k + tile * kTileElems,
                        .bytes = bytes,
                        .scale = scales + (first_tile + tile) * kScaleBytes};
      if (count == kMaxTiles) {
        quantize_tiles(tiles, count, scale_of);
        count = 0;
      }
    }
  }
  quantize_tiles(tiles, count, scale_of);
}

void indexer_quant(const IndexerQuantParams& p, int64_t begin, int64_t end) noexcept {
  if (p.power_of_two_scales) {
    quantize_keys(p, begin, end,
                  [](float amax) { return round_up_to_power_of_two(indexer_scale(amax)); });
  } else {
    quantize_keys(p, begin, end, [](float amax) { return indexer_scale(amax); });
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
