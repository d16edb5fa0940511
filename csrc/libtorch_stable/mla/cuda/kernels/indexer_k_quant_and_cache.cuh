// Quantises indexer keys in tiles of 128: within a block all e4m3 rows, then all float scales.
// Launched by cuda::indexer_k_quant_and_cache: 8 lanes per tile, 16 tiles per block.
// 16-byte loads and 8-byte stores where everything is aligned, else single elements and bytes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/cuda/launch.cuh"
#include "mla/cuda/kernels/entry_place.cuh"
#include "mla/cuda/kernels/quantize_tile.cuh"
#include "mla/params.h"

namespace kvops::kernels {

inline constexpr uint32_t kIndexerThreads = 128;
inline constexpr uint32_t kIndexerBlockTiles = kIndexerThreads / kTileLanes;

struct IndexerTiles {
  SlotTable table;
  int64_t per_token;
  Divisor per_token_divisor;
  int64_t count;

  IndexerTiles(const IndexerQuantParams& p, const SkipReport& report)
      : table(p.slot_mapping, p.num_slots, p.block_size, report),
        per_token(p.head_elems / kTileElems),
        per_token_divisor(per_token, p.tokens * per_token),
        count(p.tokens * per_token) {}
};

template <bool kAligned>
__global__ void __launch_bounds__(kIndexerThreads)
    indexer_quant_kernel(const __grid_constant__ IndexerQuantParams p,
                         const __grid_constant__ IndexerTiles tiles) {
  const uint32_t lane = threadIdx.x % kTileLanes;
  const int64_t tile = uint64_t{blockIdx.x} * kIndexerBlockTiles + threadIdx.x / kTileLanes;
  const bool exists = tile < tiles.count;
  const auto [token, column] = tiles.per_token_divisor.divide(tile);
  TileShare share = {};
  int64_t slot = -1;
  if (exists) {
    share = load_share<kAligned>(
        static_cast<const bfloat16_t*>(p.k) + token * p.k_stride_elems + column * kTileElems, lane);
    slot = tiles.table.slots[token];
  }
  // Whole warps meet here, whatever their tiles.
  const float scale = indexer_scale(tile_amax(share), p.power_of_two_scales);
  if (!tiles.table.has(slot)) {
    if (exists && column == 0 && lane == 0) tiles.table.report_skip(token, slot);
    return;
  }
  const auto [block_index, offset] = tiles.table.block_size.divide(slot);
  char* block = p.kv_cache + block_index * p.block_stride_bytes;
  const int64_t place = offset * tiles.per_token + column;
  store_share<kAligned>(block + place * kTileElems, lane, share, scale);
  if (lane == 0) {
    store_aligned<kAligned>(block + p.block_size * p.head_elems + place * 4, scale);
  }
}

inline cudaError_t launch_indexer_k_quant_and_cache(const IndexerQuantParams& p,
                                                    const SkipReport& report, cudaStream_t stream) {
  const IndexerTiles tiles(p, report);
  if (tiles.count == 0) return cudaSuccess;
  constexpr int64_t kBlockTiles = kIndexerBlockTiles;
  const int64_t blocks = (tiles.count + kBlockTiles - 1) / kBlockTiles;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  const uint64_t k_bits =
      reinterpret_cast<uint64_t>(p.k) | static_cast<uint64_t>(2 * p.k_stride_elems);
  const uint64_t cache_bits =
      reinterpret_cast<uint64_t>(p.kv_cache) | static_cast<uint64_t>(p.block_stride_bytes);
  const bool is_aligned = k_bits % sizeof(TileUnit) == 0 && cache_bits % kUnitElems == 0;
  const auto kernel = is_aligned ? indexer_quant_kernel<true> : indexer_quant_kernel<false>;
  return launch_kernel(kernel, static_cast<unsigned>(blocks), kIndexerThreads, stream, p, tiles);
}

}  // namespace kvops::kernels
