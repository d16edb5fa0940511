// Copies items between pools of any layout: for a tile of tokens one thread each finds where they
// are, then all threads copy row after row (a head of a layer of K or V) of that tile as one flat
// list of units, several loads in flight each.
// Launched by cuda::run_transfer. Indices and table entries may hold anything: tokens that are out
// of range, and layers without an address, are skipped and recorded.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/launch.cuh"
#include "common/cuda/skipped.cuh"
#include "transfer/params.h"

namespace kvops::kernels {

inline constexpr int kMaxTransferWarps = 32;
inline constexpr int kMaxTileTokens = 256;
inline constexpr int kUnitSizes = 5;  // 1, 2, 4, 8, 16 bytes

struct TransferReports {
  SkipReport src_indices;
  SkipReport dst_indices;
  SkipReport src_layers[kMaxParts];
  SkipReport dst_layers[kMaxParts];
};

struct TransferLaunch {
  TransferParams params;
  TransferReports reports;
  int tile_tokens;
  int64_t num_tiles;
  int64_t rows_per_tile;      // parts x layers x heads
  uint64_t stride_bits;       // every stride and width, or-ed
  Divisor units[kUnitSizes];  // of a chunk, for units of 1 << i bytes
};

// Where the tokens of a tile are, from the row's first byte; negative: skipped.
struct Tile {
  int64_t src_bytes[kMaxTileTokens];
  int64_t dst_bytes[kMaxTileTokens];
};

static __device__ __forceinline__ bool is_token(int64_t index, const TokenGrid& grid) {
  return index >= 0 && index < grid.num_tokens;
}

// By all threads of the block. Only one block reports a token, though several may meet it.
static __device__ __forceinline__ void find_tokens(const TransferLaunch& launch, int64_t first,
                                                   int tokens, bool reports, Tile& tile) {
  const TransferParams& p = launch.params;
  for (int i = threadIdx.x; i < tokens; i += blockDim.x) {
    const int64_t from = p.src_indices[first + i];
    const int64_t to = p.dst_indices[first + i];
    const bool good_from = is_token(from, p.src.grid);
    const bool good_to = is_token(to, p.dst.grid);
    tile.src_bytes[i] =
        good_from && good_to ? offset_of(p.src.grid.page_tokens, p.src.strides, from) : int64_t{-1};
    tile.dst_bytes[i] =
        good_from && good_to ? offset_of(p.dst.grid.page_tokens, p.dst.strides, to) : int64_t{-1};
    if (reports && !good_from) report_skipped(launch.reports.src_indices, first + i, from);
    if (reports && !good_to) report_skipped(launch.reports.dst_indices, first + i, to);
  }
}

template <class Unit>
static __device__ __forceinline__ void copy_row_as(const Divisor& chunk_units, int64_t num_units,
                                                   const char* src, char* dst, const Tile& tile) {
  constexpr int kInFlight = 4;
  constexpr auto kBytes = static_cast<int64_t>(sizeof(Unit));
  const int64_t step = blockDim.x;
  for (int64_t first = threadIdx.x; first < num_units; first += kInFlight * step) {
    Unit held[kInFlight];
    char* to[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int64_t unit = first + i * step;
      to[i] = nullptr;
      if (unit >= num_units) continue;
      const int64_t token = chunk_units.quotient(unit);
      const int64_t byte = chunk_units.remainder(unit, token) * kBytes;
      const int64_t at = tile.src_bytes[token];
      if (at < 0) continue;
      // Streaming: nothing is used twice.
      held[i] = __ldcs(reinterpret_cast<const Unit*>(src + at + byte));
      to[i] = dst + tile.dst_bytes[token] + byte;
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (to[i] != nullptr) __stcs(reinterpret_cast<Unit*>(to[i]), held[i]);
    }
  }
}

// With the widest unit that every address of the row allows.
static __device__ __forceinline__ void copy_row(const TransferLaunch& launch, const char* src,
                                                char* dst, int tokens, const Tile& tile) {
  const uint64_t bits =
      launch.stride_bits | reinterpret_cast<uint64_t>(src) | reinterpret_cast<uint64_t>(dst);
  const auto units = [&](int log_bytes) {
    return tokens * (launch.params.chunk_bytes >> log_bytes);
  };
  if (bits % 16 == 0) {
    copy_row_as<uint4>(launch.units[4], units(4), src, dst, tile);
  } else if (bits % 8 == 0) {
    copy_row_as<uint2>(launch.units[3], units(3), src, dst, tile);
  } else if (bits % 4 == 0) {
    copy_row_as<uint32_t>(launch.units[2], units(2), src, dst, tile);
  } else if (bits % 2 == 0) {
    copy_row_as<uint16_t>(launch.units[1], units(1), src, dst, tile);
  } else {
    copy_row_as<uint8_t>(launch.units[0], units(0), src, dst, tile);
  }
}

// A row of a tile: K or V, which layer, which head.
struct RowPlace {
  int part;
  int64_t layer;
  int64_t head;
};

static __device__ __forceinline__ RowPlace place_of(const TransferParams& p, int64_t row) {
  const int64_t rows_per_layer = p.num_heads;
  const int64_t rows_per_part = p.num_layers * rows_per_layer;
  const auto part = static_cast<int>(row / rows_per_part);
  row -= part * rows_per_part;
  const int64_t layer = row / rows_per_layer;
  return {part, layer, row - layer * rows_per_layer};
}

// Null where a table has no address.
static __device__ __forceinline__ char* row_base(const TransferSide& side, const RowPlace& at) {
  const TokenMemory& memory = side.memory[at.part];
  char* base = memory.layers != nullptr ? reinterpret_cast<char*>(memory.layers[at.layer])
                                        : memory.base + at.layer * side.layer_stride_bytes;
  return base != nullptr ? base + at.head * side.head_stride_bytes : nullptr;
}

// A block takes a stretch of all rows of all tiles, so that few tiles use many blocks as well.
__global__ void __launch_bounds__(kMaxTransferWarps * 32)
    transfer_items_kernel(const __grid_constant__ TransferLaunch launch) {
  __shared__ Tile tile;
  const TransferParams& p = launch.params;
  const int64_t rows = launch.num_tiles * launch.rows_per_tile;
  const int64_t share = rows / gridDim.x;
  const int64_t spare = rows - share * gridDim.x;
  const int64_t block = blockIdx.x;
  int64_t row = block * share + (block < spare ? block : spare);
  const int64_t end = row + share + (block < spare ? 1 : 0);
  while (row < end) {
    const int64_t index = row / launch.rows_per_tile;
    const int64_t first_row = index * launch.rows_per_tile;
    const int64_t first = index * launch.tile_tokens;
    const int64_t left = p.num_items - first;
    const int tokens = static_cast<int>(left < launch.tile_tokens ? left : launch.tile_tokens);
    __syncthreads();
    find_tokens(launch, first, tokens, row == first_row, tile);
    __syncthreads();
    const int64_t tile_end =
        end < first_row + launch.rows_per_tile ? end : first_row + launch.rows_per_tile;
    for (; row < tile_end; ++row) {
      const RowPlace at = place_of(p, row - first_row);
      const char* src = row_base(p.src, at);
      char* dst = row_base(p.dst, at);
      if (src != nullptr && dst != nullptr) {
        copy_row(launch, src, dst, tokens, tile);
      } else if (index == 0 && at.head == 0 && threadIdx.x == 0) {
        const TransferReports& reports = launch.reports;
        if (src == nullptr) report_skipped(reports.src_layers[at.part], at.layer, 0);
        if (dst == nullptr) report_skipped(reports.dst_layers[at.part], at.layer, 0);
      }
    }
  }
}

inline Divisor units_of_chunk(const TransferParams& p, int64_t tile_tokens, int unit_bytes) {
  return {p.chunk_bytes / unit_bytes, tile_tokens * (p.chunk_bytes / unit_bytes)};
}

// Small enough for every block to get rows, large enough to hide how tokens are found.
inline int tile_tokens_for(const TransferParams& p, int64_t rows_per_tile, int64_t blocks) {
  constexpr int64_t kLeastTileBytes = 16 << 10;
  constexpr int64_t kRowsPerBlock = 4;
  int64_t tokens = kMaxTileTokens;
  const auto rows = [&] { return (p.num_items + tokens - 1) / tokens * rows_per_tile; };
  while (tokens > 1 && rows() < kRowsPerBlock * blocks &&
         tokens / 2 * p.chunk_bytes >= kLeastTileBytes) {
    tokens /= 2;
  }
  return static_cast<int>(tokens);
}

inline cudaError_t launch_transfer_items(const TransferParams& p, const TransferReports& reports,
                                         int64_t max_blocks, cudaStream_t stream) {
  const int64_t rows_per_tile = p.num_parts * p.num_layers * p.num_heads;
  const int64_t most_blocks = std::min(max_blocks, p.block_quota);
  const int tile_tokens = tile_tokens_for(p, rows_per_tile, most_blocks);
  const int64_t num_tiles = (p.num_items + tile_tokens - 1) / tile_tokens;
  const auto bits_of = [](const TransferSide& side) {
    return static_cast<uint64_t>(side.strides.page_bytes | side.strides.token_bytes);
  };
  const TransferLaunch launch{
      .params = p,
      .reports = reports,
      .tile_tokens = tile_tokens,
      .num_tiles = num_tiles,
      .rows_per_tile = rows_per_tile,
      .stride_bits = bits_of(p.src) | bits_of(p.dst) | static_cast<uint64_t>(p.chunk_bytes),
      .units = {units_of_chunk(p, tile_tokens, 1), units_of_chunk(p, tile_tokens, 2),
                units_of_chunk(p, tile_tokens, 4), units_of_chunk(p, tile_tokens, 8),
                units_of_chunk(p, tile_tokens, 16)},
  };
  const auto blocks = static_cast<unsigned>(std::min(most_blocks, num_tiles * rows_per_tile));
  const auto warps = std::min<int64_t>(p.num_warps_per_block, kMaxTransferWarps);
  return launch_kernel(transfer_items_kernel, blocks, static_cast<unsigned>(warps) * 32, stream,
                       launch);
}

}  // namespace kvops::kernels
