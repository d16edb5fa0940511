// Values of a cache that holds the tokens of a page side by side: a warp takes 32 tokens and some
// columns of a head through shared memory, and stores 8 neighbours of a page at once, so that both
// its loads and its stores are whole sectors. Scattered tokens are stored element by element.
// Used by reshape_and_cache.
#pragma once

#include <cstdint>

#include "cache/cuda/kernels/movers.cuh"
#include "cache/cuda/kernels/page_layout.cuh"
#include "cache/cuda/kernels/token_tile.cuh"
#include "cache/params.h"
#include "common/cuda/alignment.h"
#include "common/cuda/slots.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

struct TransposedSide {
  const char* src;
  const float* scale;
  PageLayout layout;
  int64_t token_stride_bytes;
  int64_t head_stride_bytes;
  int64_t step_bytes;  // between a thread's tokens
  int64_t tiles;
  uint32_t head_size;
  NarrowDivisor slabs;           // tiles that share tokens
  NarrowDivisor slabs_per_head;  // a slab is the columns of a tile
};

template <class Mover>
using TileOf = TokenTile<typename Mover::Stored, kTileRowUnits * sizeof(typename Mover::Out)>;

#if defined(__CUDACC__)

// What a lane knows of its token of the tile, and what the warp knows of all.
struct TilePlan {
  int64_t place;    // of the lane's token
  uint32_t pieces;  // tokens that begin a whole piece
  uint32_t loose;   // tokens that are written, but not in a whole piece

  // The first token of the piece with that number, below 4; 0 if there are fewer.
  __device__ __forceinline__ uint32_t first_token(uint32_t number) const {
    uint32_t rest = pieces;
    rest = number > 0 ? rest & (rest - 1) : rest;
    rest = number > 1 ? rest & (rest - 1) : rest;
    rest = number > 2 ? rest & (rest - 1) : rest;
    return rest == 0 ? 0 : __ffs(static_cast<int>(rest)) - 1;
  }
};

// To be called by the whole warp; `slot` is that of the lane's token, -1 if it has none.
__device__ __forceinline__ TilePlan plan_tile(const PageLayout& layout,
                                              const Slots<WideIndices>& slots, int64_t slot,
                                              uint32_t lane) {
  constexpr uint32_t kAll = 0xffffffffu;
  const bool written = slots.is_written(slot);
  TilePlan plan{};
  bool may_begin = false;
  if (written) {
    const auto [block, offset] = slots.split(slot);
    plan.place = layout.place<true>(block, offset);
    // Groups are whole pieces, so that this says it of the offset in the group.
    may_begin = offset % kPieceTokens == 0;
  }
  const int64_t slot_before = __shfl_up_sync(kAll, slot, 1);
  const uint32_t continuing =
      __ballot_sync(kAll, written && lane > 0 && !may_begin && slot == slot_before + 1);
  constexpr uint32_t kOthers = (1u << (kPieceTokens - 1)) - 1;
  const bool begins = may_begin && lane <= kTileTokens - kPieceTokens &&
                      (continuing >> (lane + 1) & kOthers) == kOthers;
  plan.pieces = __ballot_sync(kAll, begins);
  plan.loose = __ballot_sync(kAll, written) & ~(plan.pieces * ((1u << kPieceTokens) - 1));
  return plan;
}

// Both: `column` is the address of column 0 of the tile, to which places are added.

template <class Stored, class Tile>
__device__ __forceinline__ void store_pieces(Tile& tile, const TilePlan& plan, char* column,
                                             int64_t column_stride, uint32_t columns,
                                             uint32_t lane) {
  using Reader = PieceReader<Tile, sizeof(Stored)>;
  using Piece = Packed<Stored, kPieceTokens>;
  const uint32_t pieces = __popc(plan.pieces);
#pragma unroll
  for (uint32_t first = 0; first < kTileTokens / kPieceTokens; first += Reader::kPieces) {
    const auto first_token = [&](uint32_t piece) { return plan.first_token(first + piece); };
    const Reader reader(tile, lane, first_token);
    const uint32_t piece = Reader::piece(lane);
    char* to = column + __shfl_sync(0xffffffffu, plan.place, first_token(piece)) +
               Reader::column(lane) * column_stride;
#pragma unroll
    for (uint32_t i = 0; i < Tile::kColumns; i += Reader::kColumns) {
      const Piece value = reader.read(i);
      if (first + piece < pieces && i + Reader::column(lane) < columns) {
        store_words(reinterpret_cast<Piece*>(to), value);
      }
      to += Reader::kColumns * column_stride;
    }
  }
}

template <class Stored, class Tile>
__device__ __forceinline__ void store_loose(Tile& tile, const TilePlan& plan, char* column,
                                            int64_t column_stride, uint32_t columns,
                                            uint32_t lane) {
  using Bits = Packed<Stored, 1>;
  char* to = column + lane * column_stride;
#pragma unroll 4
  for (uint32_t token = 0; token < kTileTokens; ++token) {
    const int64_t place = __shfl_sync(0xffffffffu, plan.place, static_cast<int>(token));
    if ((plan.loose >> token & 1) == 0) continue;
    const auto row = tile.row(token);
#pragma unroll
    for (uint32_t i = 0; i < Tile::kColumns; i += 32) {
      if (i + lane >= columns) continue;
      *reinterpret_cast<Bits*>(to + place + i * column_stride) =
          *reinterpret_cast<const Bits*>(row.at(i + lane));
    }
  }
}

// A warp's tile of the side. To be called by whole warps.
template <class Mover>
__device__ __forceinline__ void transpose_tile(TileOf<Mover>& tile, const TransposedSide& side,
                                               const Slots<WideIndices>& slots, uint32_t index) {
  using In = typename Mover::In;
  using Out = typename Mover::Out;
  using Stored = typename Mover::Stored;
  constexpr uint32_t kRowsAtOnce = 32 / kTileRowUnits;
  constexpr uint32_t kLoads = kTileTokens / kRowsAtOnce;
  const uint32_t lane = threadIdx.x % 32;
  const auto [token_tile, slab] = side.slabs.divide(index);
  const auto [head, slab_in_head] = side.slabs_per_head.divide(slab);
  const uint32_t first_column = slab_in_head * TileOf<Mover>::kColumns;
  const uint32_t columns = min(side.head_size - first_column, TileOf<Mover>::kColumns);
  const int64_t first_token = uint64_t{token_tile} * kTileTokens;
  const uint32_t tokens =
      static_cast<uint32_t>(min(slots.tokens - first_token, int64_t{kTileTokens}));
  const int64_t slot = lane < tokens ? slots.of_tokens[first_token + lane] : -1;

  const uint32_t row = lane / kTileRowUnits;
  const uint32_t column = lane % kTileRowUnits * Mover::kElems;
  const char* from = side.src + (first_token + row) * side.token_stride_bytes +
                     head * side.head_stride_bytes +
                     uint64_t{first_column + column} * sizeof(typename Mover::Source);
  In values[kLoads];
#pragma unroll
  for (uint32_t i = 0; i < kLoads; ++i) {
    if (column < columns && row + i * kRowsAtOnce < tokens) {
      values[i] = *reinterpret_cast<const In*>(from + i * side.step_bytes);
    }
  }
  const Mover mover(Mover::kScales ? *side.scale : 1.0f);
#pragma unroll
  for (uint32_t i = 0; i < kLoads; ++i) {
    if (column < columns && row + i * kRowsAtOnce < tokens) {
      *reinterpret_cast<Out*>(tile.row(row + i * kRowsAtOnce).at(column)) = mover(values[i]);
    }
  }
  const TilePlan plan = plan_tile(side.layout, slots, slot, lane);
  __syncwarp();
  char* to = side.layout.column(head, first_column);
  const int64_t stride = side.layout.unit_stride;
  if (plan.pieces != 0) store_pieces<Stored>(tile, plan, to, stride, columns, lane);
  if (plan.loose != 0) store_loose<Stored>(tile, plan, to, stride, columns, lane);
}

#endif

// ---- launch

// Whether whole pieces can be stored: their addresses are multiples of their size, or of 16 bytes.
inline bool has_pieces(const CacheSide& s, const CacheWriterParams& p) {
  const int64_t bytes = stored_bytes_of(p.dtype, p.kind);
  if (s.unit_elems != 1 || s.offset_stride != 1 || s.group_tokens % int64_t{kPieceTokens} != 0)
    return false;
  Alignment alignment;
  alignment.with(s.cache).with(s.block_stride * bytes).with(s.group_stride * bytes);
  alignment.with(s.unit_stride * bytes);
  if (p.heads > 1) alignment.with(s.head_stride * bytes);
  return alignment.allows(bytes == 1 ? 8 : 16);
}

inline TransposedSide transposed_side(const CacheSide& s, const CacheWriterParams& p,
                                      int64_t tile_columns) {
  const int64_t elem_bytes = element_bytes_of(p.dtype);
  const int64_t slabs_per_head = (s.head_size + tile_columns - 1) / tile_columns;
  const int64_t slabs = slabs_per_head * p.heads;
  const int64_t tiles = (p.tokens - 1) / int64_t{kTileTokens} * slabs + slabs;
  return {
      .src = s.src,
      .scale = s.scale,
      .layout = PageLayout(s, p.block_size, stored_bytes_of(p.dtype, p.kind)),
      .token_stride_bytes = s.src_token_stride * elem_bytes,
      .head_stride_bytes = s.src_head_stride * elem_bytes,
      .step_bytes = s.src_token_stride * elem_bytes * (32 / kTileRowUnits),
      .tiles = tiles,
      .head_size = static_cast<uint32_t>(s.head_size),
      .slabs = NarrowDivisor(slabs),
      .slabs_per_head = NarrowDivisor(slabs_per_head),
  };
}

}  // namespace kvops::kernels
