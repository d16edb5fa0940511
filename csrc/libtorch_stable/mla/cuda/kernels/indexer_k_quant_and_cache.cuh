// Quantises indexer keys in tiles of 128: within a block all e4m3 rows, then all float scales.
// Launched by cuda::indexer_k_quant_and_cache: 8 lanes per tile, a block takes the same tile of 16
// tokens.
// 16-byte loads and stores where everything is aligned, else single elements and bytes, of any
// number of slots.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "common/cuda/indices.cuh"
#include "common/cuda/launch.cuh"
#include "common/cuda/slots.cuh"
#include "mla/cuda/kernels/quantize_tile.cuh"
#include "mla/params.h"

namespace kvops::kernels {

inline constexpr uint32_t kIndexerThreads = 128;
inline constexpr uint32_t kIndexerBlockTokens = kIndexerThreads / kTileLanes;
inline constexpr int64_t kMaxIndexerTiles = 65535;  // of a token: blocks of a grid along y

template <bool kAligned>
using IndexerIndices = std::conditional_t<kAligned, NarrowIndices, WideIndices>;

template <bool kAligned>
__global__ void __launch_bounds__(kIndexerThreads)
    indexer_quant_kernel(const __grid_constant__ IndexerQuantParams p,
                         const __grid_constant__ Slots<IndexerIndices<kAligned>> slots) {
  using Token = typename IndexerIndices<kAligned>::Count;
  const uint32_t lane = threadIdx.x % kTileLanes;
  const uint32_t tile = blockIdx.y;
  const Token token = Token{blockIdx.x} * kIndexerBlockTokens + threadIdx.x / kTileLanes;
  const bool exists = token < slots.tokens;
  TileShare share = {};
  int64_t slot = -1;
  if (exists) {
    slot = slots.of_tokens[token];
    share = load_share<kAligned>(
        static_cast<const bfloat16_t*>(p.k) + token * p.k_stride_elems + tile * kTileElems, lane);
  }
  // Whole warps meet here, whatever their tiles.
  const float scale = indexer_scale(tile_amax(share), p.power_of_two_scales);
  if (!slots.is_written(slot)) {
    if (exists && tile == 0 && lane == 0) slots.report(token, slot);
    return;
  }
  const auto [block_index, offset] = slots.split(slot);
  char* block = p.kv_cache + block_index * p.block_stride_bytes;
  const int64_t place = int64_t{offset} * gridDim.y + tile;
  store_share<kAligned>(block + place * kTileElems, lane, share, scale);
  if (lane == 0) {
    store_aligned<kAligned>(block + p.block_size * p.head_elems + place * 4, scale);
  }
}

inline cudaError_t launch_indexer_k_quant_and_cache(const IndexerQuantParams& p,
                                                    const SkipReport& report, cudaStream_t stream) {
  const int64_t tiles = p.head_elems / kTileElems;  // of a token
  if (p.tokens == 0 || tiles == 0) return cudaSuccess;
  constexpr int64_t kBlockTokens = kIndexerBlockTokens;
  const int64_t blocks = (p.tokens + kBlockTokens - 1) / kBlockTokens;
  if (blocks > INT32_MAX || tiles > kMaxIndexerTiles) return cudaErrorInvalidConfiguration;
  const uint64_t k_bits =
      reinterpret_cast<uint64_t>(p.k) | static_cast<uint64_t>(2 * p.k_stride_elems);
  const uint64_t cache_bits =
      reinterpret_cast<uint64_t>(p.kv_cache) | static_cast<uint64_t>(p.block_stride_bytes);
  const bool is_aligned = k_bits % sizeof(TileUnit) == 0 && cache_bits % kShareElems == 0;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(tiles));
  const auto launch = [&]<bool kAligned>(std::bool_constant<kAligned>) {
    return launch_kernel(indexer_quant_kernel<kAligned>, grid, kIndexerThreads, stream, p,
                         Slots<IndexerIndices<kAligned>>(p, report));
  };
  return is_aligned && NarrowIndices::can_count(p.tokens, p.num_slots) ? launch(std::true_type{})
                                                                       : launch(std::false_type{});
}

}  // namespace kvops::kernels
