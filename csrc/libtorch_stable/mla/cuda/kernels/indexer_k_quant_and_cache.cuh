// Quantises indexer keys in tiles of 128: within a block all e4m3 rows, then all float scales.
// Launched by cuda::indexer_k_quant_and_cache: half a warp per tile, two tiles one after the other.
// 16-byte loads and 8-byte stores where everything is aligned, else single elements and bytes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "mla/cuda/kernels/entry_place.cuh"
#include "mla/cuda/kernels/quantize_tile.cuh"
#include "mla/params.h"

namespace kvops::kernels {

inline constexpr int kIndexerThreads = 128;
inline constexpr int kTilesPerLane = 2;

struct IndexerTiles {
  SlotTable table;
  Divisor per_token;
  int64_t count;

  IndexerTiles(const IndexerQuantParams& p, const SkipReport& report)
      : table(p.slot_mapping, p.num_slots, p.block_size, report),
        per_token(p.head_elems / kTileElems, p.tokens * (p.head_elems / kTileElems)),
        count(p.tokens * (p.head_elems / kTileElems)) {}
};

// What a lane knows of a tile before it waits for anything. Tiles beyond the last one have zeros.
struct IndexerShare {
  LaneElems elems;
  int64_t slot;
};

template <bool kAligned>
__device__ __forceinline__ IndexerShare load_share(const IndexerQuantParams& p,
                                                   const IndexerTiles& tiles, int64_t tile,
                                                   int tile_lane) {
  if (tile >= tiles.count) return {};
  const int64_t token = tiles.per_token.quotient(tile);
  const int64_t column =
      tiles.per_token.remainder(tile, token) * kTileElems + tile_lane * kLaneElems;
  const bfloat16_t* k = static_cast<const bfloat16_t*>(p.k) + token * p.k_stride_elems + column;
  return {load_lane<kAligned>(k), tiles.table.slots[token]};
}

template <bool kAligned>
__device__ __forceinline__ void store_share(const IndexerQuantParams& p, const IndexerTiles& tiles,
                                            const IndexerShare& share, int64_t tile,
                                            int tile_lane) {
  float x[kLaneElems];
  widen_lane(share.elems, x);
  const float scale = indexer_scale(tile_amax(x), p.power_of_two_scales);
  if (tile >= tiles.count) return;
  const int64_t token = tiles.per_token.quotient(tile);
  const int64_t column = tiles.per_token.remainder(tile, token);
  if (!tiles.table.has(share.slot)) {
    if (column == 0 && tile_lane == 0) tiles.table.skip(token);
    return;
  }
  const int64_t block_index = tiles.table.block_size.quotient(share.slot);
  const int64_t offset = tiles.table.block_size.remainder(share.slot, block_index);
  char* block = p.kv_cache + block_index * p.block_stride_bytes;
  const int64_t place = offset * (p.head_elems / kTileElems) + column;
  store_lane<kAligned>(block + place * kTileElems + tile_lane * kLaneElems,
                       quantize_lane(x, scale));
  if (tile_lane == 0) {
    store_lane<kAligned>(block + p.block_size * p.head_elems + place * 4, scale);
  }
}

template <bool kAligned>
__global__ void __launch_bounds__(kIndexerThreads)
    indexer_quant_kernel(const __grid_constant__ IndexerQuantParams p,
                         const __grid_constant__ IndexerTiles tiles) {
  constexpr int kSlots = kIndexerThreads / kTileLanes;
  const int tile_lane = static_cast<int>(threadIdx.x) % kTileLanes;
  const int tile_slot = static_cast<int>(threadIdx.x) / kTileLanes;
  constexpr int64_t kBlockTiles = kSlots * kTilesPerLane;
  // The same for all threads of a block, so that whole warps meet in the reductions.
  for (int64_t base = blockIdx.x * kBlockTiles; base < tiles.count;
       base += gridDim.x * kBlockTiles) {
    IndexerShare shares[kTilesPerLane];
#pragma unroll
    for (int j = 0; j < kTilesPerLane; ++j) {
      shares[j] = load_share<kAligned>(p, tiles, base + j * kSlots + tile_slot, tile_lane);
    }
#pragma unroll
    for (int j = 0; j < kTilesPerLane; ++j) {
      store_share<kAligned>(p, tiles, shares[j], base + j * kSlots + tile_slot, tile_lane);
    }
  }
}

inline cudaError_t launch_indexer_k_quant_and_cache(const IndexerQuantParams& p,
                                                    const SkipReport& report, cudaStream_t stream) {
  const IndexerTiles tiles(p, report);
  if (tiles.count == 0) return cudaSuccess;
  constexpr int64_t kBlockTiles = kIndexerThreads / kTileLanes * kTilesPerLane;
  const int64_t wanted = (tiles.count + kBlockTiles - 1) / kBlockTiles;
  const unsigned blocks = static_cast<unsigned>(wanted < INT32_MAX ? wanted : INT32_MAX);
  const uint64_t k_bits =
      reinterpret_cast<uint64_t>(p.k) | static_cast<uint64_t>(2 * p.k_stride_elems);
  const uint64_t cache_bits =
      reinterpret_cast<uint64_t>(p.kv_cache) | static_cast<uint64_t>(p.block_stride_bytes);
  const bool is_aligned = k_bits % sizeof(LaneElems) == 0 && cache_bits % sizeof(LaneBytes) == 0;
  const auto kernel = is_aligned ? indexer_quant_kernel<true> : indexer_quant_kernel<false>;
  kernel<<<blocks, kIndexerThreads, 0, stream>>>(p, tiles);
  return cudaGetLastError();
}

}  // namespace kvops::kernels
