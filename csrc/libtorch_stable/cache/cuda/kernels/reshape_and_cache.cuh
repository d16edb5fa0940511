// Writes tokens into pages whose heads are split into units: a tile of tokens and columns goes
// through shared memory, so that both its loads and its stores are whole sectors.
// Launched by cuda::reshape_and_cache. Scattered slots only make the stores narrower.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cache/cuda/kernels/movers.cuh"
#include "cache/cuda/kernels/slots.cuh"
#include "cache/cuda/kernels/token_tile.cuh"
#include "cache/params.h"
#include "common/cuda/launch.cuh"

namespace kvops::kernels {

enum class TileStores : int {
  kUnits,     // units of 16 bytes, as they are
  kPieces,    // units of one element: several tokens in one store
  kElements,  // any other unit
};

// One of key and value; strides of the cache in elements.
struct SplitSide {
  const char* src;
  const float* scale;
  char* cache;
  int64_t src_token_stride_bytes;
  int64_t src_head_stride_bytes;
  int64_t head_stride;
  int64_t unit_stride;
  Divisor unit_elems;
  TokenLayout layout;
  TileStores stores;
  int piece_words;  // kPieces: 4-byte words in the store of a whole piece; 0: no such store
};

struct SplitWriter {
  SplitSide sides[2];
  Slots slots;
  Divisor head_size;
  int64_t columns;  // heads * head_size
  Divisor slabs;    // tiles that have the same tokens
  int64_t tiles;
  int tile_tokens_log2;
};

inline constexpr int kSplitThreads = 128;
inline constexpr int kSplitUnitsInFlight = 4;

// Columns of a tile: 256 bytes of elements that are copied, 128 elements that become fp8.
template <class Stored>
inline constexpr int kTileColumns = sizeof(Stored) == 4 ? 64 : 128;

template <class Mover>
using TileOf = TokenTile<typename Mover::Stored, kTileColumns<typename Mover::Stored>>;

struct TilePosition {
  int64_t first_token;
  int64_t first_column;
  int tokens;   // of the tile, some maybe behind the last token
  int columns;  // of the tile that exist
};

template <class Mover>
__device__ __forceinline__ void load_tile(TileOf<Mover>& tile, const SplitWriter& w,
                                          const SplitSide& side, const TilePosition& at) {
  using In = typename Mover::In;
  constexpr int kRowUnits = kTileColumns<typename Mover::Stored> / Mover::kElems;
  const float scale = Mover::kScales ? *side.scale : 1.0f;
  const int units = at.tokens * kRowUnits;
  for (int base = threadIdx.x; base < units; base += kSplitThreads * kSplitUnitsInFlight) {
    In loaded[kSplitUnitsInFlight];
    bool exists[kSplitUnitsInFlight];
#pragma unroll
    for (int i = 0; i < kSplitUnitsInFlight; ++i) {
      const int unit = base + i * kSplitThreads;
      const int column = unit % kRowUnits * Mover::kElems;
      const int64_t token = at.first_token + unit / kRowUnits;
      exists[i] = unit < units && column < at.columns && token < w.slots.tokens;
      if (!exists[i]) continue;
      const int64_t head = w.head_size.quotient(at.first_column + column);
      const int64_t elem = w.head_size.remainder(at.first_column + column, head);
      loaded[i] = load_unit<In>(side.src + token * side.src_token_stride_bytes +
                                head * side.src_head_stride_bytes +
                                elem * static_cast<int64_t>(sizeof(typename Mover::Source)));
    }
#pragma unroll
    for (int i = 0; i < kSplitUnitsInFlight; ++i) {
      const int unit = base + i * kSplitThreads;
      if (!exists[i]) continue;
      store_unit(tile.at(unit / kRowUnits, unit % kRowUnits * Mover::kElems),
                 Mover::convert(loaded[i], scale));
    }
  }
}

// Neighbouring lanes have neighbouring tokens, whose units are neighbours in the cache.
template <class Stored>
__device__ __forceinline__ void store_units(TokenTile<Stored, kTileColumns<Stored>>& tile,
                                            const TilePlan& plan, const SplitWriter& w,
                                            const SplitSide& side, const TilePosition& at) {
  constexpr int kUnitElems = 16 / static_cast<int>(sizeof(Stored));
  const int units = at.columns / kUnitElems << w.tile_tokens_log2;
  for (int i = threadIdx.x; i < units; i += kSplitThreads) {
    const int token = i & (at.tokens - 1);
    const int column = (i >> w.tile_tokens_log2) * kUnitElems;
    const int64_t base = plan.bases[token];
    if (base < 0) continue;
    const int64_t head = w.head_size.quotient(at.first_column + column);
    const int64_t elem = w.head_size.remainder(at.first_column + column, head);
    const int64_t place = base + head * side.head_stride + elem / kUnitElems * side.unit_stride;
    store_unit(side.cache + place * static_cast<int64_t>(sizeof(Stored)),
               load_unit<uint4>(tile.at(token, column)));
  }
}

// One column of a whole piece: elements of neighbouring tokens, packed.
template <class Stored>
__device__ __forceinline__ void store_piece(char* to, int words,
                                            TokenTile<Stored, kTileColumns<Stored>>& tile,
                                            int first_token, int column) {
  constexpr int kPerWord = 4 / static_cast<int>(sizeof(Stored));
  constexpr int kBits = 8 * static_cast<int>(sizeof(Stored));
  uint32_t packed[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    packed[i] = 0;
    if (i >= words) continue;
#pragma unroll
    for (int j = 0; j < kPerWord; ++j) {
      const char* from = tile.at(first_token + i * kPerWord + j, column);
      packed[i] |= static_cast<uint32_t>(load_unit<Raw<sizeof(Stored)>>(from)) << (j * kBits % 32);
    }
  }
  if (words == 4) {
    store_unit(to, make_uint4(packed[0], packed[1], packed[2], packed[3]));
    return;
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if (i < words) store_unit(to + 4 * i, packed[i]);
  }
}

// Neighbouring lanes have two pieces, which mostly share a sector, of neighbouring columns.
template <class Stored>
__device__ __forceinline__ void store_pieces(TokenTile<Stored, kTileColumns<Stored>>& tile,
                                             const TilePlan& plan, const SplitWriter& w,
                                             const SplitSide& side, const TilePosition& at) {
  constexpr int kColumns = kTileColumns<Stored>;
  constexpr int64_t kBytes = sizeof(Stored);
  const int stores = (plan.num_pieces + 1) / 2 * 2 * kColumns;
  for (int i = threadIdx.x; i < stores; i += kSplitThreads) {
    const int index = i / (2 * kColumns) * 2 + i % 2;
    const int column = i / 2 % kColumns;
    if (index >= plan.num_pieces || column >= at.columns) continue;
    const TokenPiece piece = plan.pieces[index];
    const int64_t head = w.head_size.quotient(at.first_column + column);
    const int64_t elem = w.head_size.remainder(at.first_column + column, head);
    char* to =
        side.cache + (piece.base + head * side.head_stride + elem * side.unit_stride) * kBytes;
    if (side.piece_words > 0 && piece.count == side.layout.piece_tokens) {
      store_piece<Stored>(to, side.piece_words, tile, piece.first, column);
    } else {
      for (int k = 0; k < piece.count; ++k) {
        store_unit(to + k * kBytes,
                   load_unit<Raw<sizeof(Stored)>>(tile.at(piece.first + k, column)));
      }
    }
  }
}

template <class Stored>
__device__ __forceinline__ void store_elements(TokenTile<Stored, kTileColumns<Stored>>& tile,
                                               const TilePlan& plan, const SplitWriter& w,
                                               const SplitSide& side, const TilePosition& at) {
  constexpr int kColumns = kTileColumns<Stored>;
  for (int i = threadIdx.x; i < at.tokens * kColumns; i += kSplitThreads) {
    const int token = i / kColumns;
    const int column = i % kColumns;
    const int64_t base = plan.bases[token];
    if (base < 0 || column >= at.columns) continue;
    const int64_t head = w.head_size.quotient(at.first_column + column);
    const int64_t elem = w.head_size.remainder(at.first_column + column, head);
    const int64_t unit = side.unit_elems.quotient(elem);
    const int64_t place = base + head * side.head_stride + unit * side.unit_stride +
                          side.unit_elems.remainder(elem, unit);
    store_unit(side.cache + place * static_cast<int64_t>(sizeof(Stored)),
               load_unit<Raw<sizeof(Stored)>>(tile.at(token, column)));
  }
}

template <class Mover>
__global__ void __launch_bounds__(kSplitThreads)
    reshape_and_cache_kernel(const __grid_constant__ SplitWriter w) {
  using Stored = typename Mover::Stored;
  constexpr int kColumns = kTileColumns<Stored>;
  __shared__ TileOf<Mover> tile;
  __shared__ TilePlan plan;
  const SplitSide& side = w.sides[blockIdx.y];
  for (int64_t index = blockIdx.x; index < w.tiles; index += gridDim.x) {
    const int64_t token_tile = w.slabs.quotient(index);
    const int64_t slab = w.slabs.remainder(index, token_tile);
    const int64_t columns_left = w.columns - slab * kColumns;
    const TilePosition at{
        .first_token = token_tile << w.tile_tokens_log2,
        .first_column = slab * kColumns,
        .tokens = 1 << w.tile_tokens_log2,
        .columns = columns_left < kColumns ? static_cast<int>(columns_left) : kColumns,
    };
    // Read early, looked at after the loads of the tile are under way.
    const int64_t token = at.first_token + threadIdx.x;
    const bool has_token = static_cast<int>(threadIdx.x) < at.tokens && token < w.slots.tokens;
    const int64_t slot = has_token ? w.slots.of_tokens[token] : -1;
    load_tile<Mover>(tile, w, side, at);
    if (threadIdx.x < 32) {
      plan_tile(plan, side.layout, w.slots, slot);
      if (blockIdx.y == 0 && slab == 0 && !w.slots.is_written(slot)) w.slots.report(token, slot);
    }
    __syncthreads();
    switch (side.stores) {
      case TileStores::kUnits:
        store_units<Stored>(tile, plan, w, side, at);
        break;
      case TileStores::kPieces:
        store_pieces<Stored>(tile, plan, w, side, at);
        break;
      default:
        store_elements<Stored>(tile, plan, w, side, at);
    }
    __syncthreads();
  }
}

// ---- launch

// Everything that a store of 16 bytes, or of a piece, depends on.
inline Alignment cache_alignment(const CacheSide& s, const CacheWriterParams& p, int64_t bytes) {
  Alignment alignment;
  alignment.with(s.cache).with(s.block_stride * bytes).with(s.group_stride * bytes);
  alignment.with(s.unit_stride * bytes);
  if (p.heads > 1) alignment.with(s.head_stride * bytes);
  return alignment;
}

inline SplitSide split_side(const CacheSide& s, const CacheWriterParams& p) {
  const int bytes = stored_bytes_of(p.dtype, p.kind);
  const Alignment alignment = cache_alignment(s, p, bytes);
  SplitSide side{
      .src = s.src,
      .scale = s.scale,
      .cache = s.cache,
      .src_token_stride_bytes = s.src_token_stride * element_bytes_of(p.dtype),
      .src_head_stride_bytes = s.src_head_stride * element_bytes_of(p.dtype),
      .head_stride = s.head_stride,
      .unit_stride = s.unit_stride,
      .unit_elems = Divisor(s.unit_elems, s.head_size),
      .layout = {.block_stride = s.block_stride,
                 .group_stride = s.group_stride,
                 .offset_stride = s.offset_stride,
                 .group_tokens = Divisor(s.group_tokens, p.block_size),
                 .piece_tokens = 1},
      .stores = TileStores::kElements,
      .piece_words = 0,
  };
  if (s.unit_elems * bytes == 16 && alignment.allows(16)) {
    side.stores = TileStores::kUnits;
  } else if (s.unit_elems == 1) {
    side.stores = TileStores::kPieces;
    for (int piece_bytes : {16, 8, 4}) {
      if (!alignment.allows(piece_bytes)) continue;
      side.layout.piece_tokens = piece_bytes / bytes;
      side.piece_words = piece_bytes / 4;
      break;
    }
  }
  return side;
}

template <class Mover>
cudaError_t launch_split_writer(const CacheWriterParams& p, const SkipReport& report,
                                cudaStream_t stream) {
  constexpr int kColumns = kTileColumns<typename Mover::Stored>;
  const int64_t columns = p.heads * p.key.head_size;
  const int64_t slabs = (columns + kColumns - 1) / kColumns;
  const auto tiles_of = [&](int log2) { return ((p.tokens - 1) >> log2) * slabs + slabs; };
  // Few tokens: fewer of them per tile, so that more multiprocessors have one.
  const int log2 = tiles_of(5) < 132 ? 3 : 5;
  const int64_t tiles = tiles_of(log2);
  if (tiles <= 0) return cudaSuccess;
  const SplitWriter w{
      .sides = {split_side(p.key, p), split_side(p.value, p)},
      .slots = Slots(p, report),
      .head_size = Divisor(p.key.head_size, columns),
      .columns = columns,
      .slabs = Divisor(slabs, tiles),
      .tiles = tiles,
      .tile_tokens_log2 = log2,
  };
  const dim3 grid(static_cast<unsigned>(tiles < INT32_MAX ? tiles : INT32_MAX), 2);
  return launch_kernel(reshape_and_cache_kernel<Mover>, grid, kSplitThreads, stream, w);
}

inline cudaError_t launch_reshape_and_cache(const CacheWriterParams& p, const SkipReport& report,
                                            cudaStream_t stream) {
  const int64_t src_bytes = element_bytes_of(p.dtype);
  Alignment src;
  for (const CacheSide& s : {p.key, p.value}) {
    src.with(s.src).with(s.head_size * src_bytes).with(s.src_token_stride * src_bytes);
    if (p.heads > 1) src.with(s.src_head_stride * src_bytes);
  }
  const bool wide = src.allows(16);
  const auto launch = [&](auto mover) {
    return launch_split_writer<decltype(mover)>(p, report, stream);
  };
  if (p.kind != CacheKind::kAuto) {
    return wide && p.key.head_size % kWideElems == 0
               ? with_quantizer<kWideElems>(p.dtype, p.kind, launch)
               : with_quantizer<1>(p.dtype, p.kind, launch);
  }
  if (src_bytes == 4) {
    return wide ? launch(Copier<uint32_t, 4>{}) : launch(Copier<uint32_t, 1>{});
  }
  return wide ? launch(Copier<uint16_t, 8>{}) : launch(Copier<uint16_t, 1>{});
}

}  // namespace kvops::kernels
