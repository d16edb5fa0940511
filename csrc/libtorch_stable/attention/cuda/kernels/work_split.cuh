// Which tiles a block attends to: contiguous shares of all (sequence, unit, tile), equal to one
// tile, from the lengths that are on the device. A tile is `tile_warps` x 16 tokens of one unit;
// tiles of a sequence's units follow each other. Depends on lengths and grid only, never on timing:
// equal calls split equally.
#pragma once

#include <cstdint>

#include "attention/cuda/kernels/plan.h"

namespace kvops::kernels {

static __device__ __forceinline__ int64_t clamped_length(const PagedAttentionParams& p,
                                                         int64_t length) {
  return length < 0 ? 0 : length < p.max_tokens ? length : p.max_tokens;
}

static __device__ __forceinline__ int64_t sequence_tokens(const PagedAttentionParams& p,
                                                          int64_t seq) {
  return clamped_length(p, __ldg(p.seq_lens + seq));
}

static __device__ __forceinline__ int64_t tiles_of(const AttentionPlan& plan, int64_t tokens) {
  // A power of 2.
  const int tile_tokens = plan.tile_warps * kWarpTokens;
  return (tokens + tile_tokens - 1) >> (__ffs(tile_tokens) - 1);
}

static __device__ __noinline__ int64_t divide_wide(int64_t numerator, int64_t denominator) {
  return numerator / denominator;
}

// One instruction takes the place of some hundred wherever numbers are small.
static __device__ __forceinline__ int64_t divide(int64_t numerator, int64_t denominator) {
  if (((numerator | denominator) >> 32) != 0) return divide_wide(numerator, denominator);
  return static_cast<uint32_t>(numerator) / static_cast<uint32_t>(denominator);
}

// The tiles of all blocks, and how they are shared out: the first `longer` blocks have one more.
struct TileRange {
  int64_t share;  // tiles of each of the other blocks
  int32_t longer;
  int32_t blocks;  // that have any

  __device__ __forceinline__ int64_t begin(int32_t block) const {
    return block * share + (block < longer ? block : longer);
  }
  // The block that has this tile.
  __device__ __forceinline__ int32_t block_of(int64_t tile) const {
    const int64_t first = longer * (share + 1);  // tile of a block without one more
    const int64_t block =
        tile < first ? divide(tile, share + 1) : longer + divide(tile - first, share);
    return static_cast<int32_t>(block);
  }
};

// A block's share, as pieces of units: a piece is tiles [tile, tile + piece_tiles()) of a unit.
struct ShareWalk {
  int64_t left;  // tiles from here to the end of the share
  int64_t seq;
  int32_t seq_len;
  int32_t tiles;  // of the unit
  int32_t tile;
  int32_t unit;

  __device__ __forceinline__ int32_t piece_tiles() const {
    return left < tiles - tile ? static_cast<int32_t>(left) : tiles - tile;
  }

  __device__ __forceinline__ void next_piece(const PagedAttentionParams& p,
                                             const AttentionPlan& plan) {
    left -= piece_tiles();
    if (left == 0) return;
    tile = 0;
    if (++unit < plan.units) return;
    unit = 0;
    // There is a tile left, so there is another sequence with tokens: unless somebody writes to
    // seq_lens meanwhile, which must not lead out of it.
#pragma unroll 1
    do {
      if (++seq >= p.num_seqs) {
        left = 0;
        return;
      }
      seq_len = static_cast<int32_t>(sequence_tokens(p, seq));
    } while (seq_len == 0);
    tiles = static_cast<int32_t>(tiles_of(plan, seq_len));
  }
};

// The sum of the lanes before, and of all.
static __device__ __forceinline__ int64_t scan_lanes(int64_t own, int64_t& total) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int64_t sum = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int64_t other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  total = __shfl_sync(~0u, sum, 31);
  return sum - own;
}

// Tiles of a block; with fewer, there are fewer blocks.
inline constexpr int64_t kFewTiles = 8;

// How tiles are shared out. Where there are few, so are the blocks: adding up what they find costs
// more than what more of them gain.
static __device__ __forceinline__ TileRange share_out(const AttentionPlan& plan, int64_t tiles) {
  const auto grid = static_cast<int32_t>(gridDim.x);
  const int32_t most = tiles < kFewTiles * grid ? plan.few_blocks : grid;
  TileRange range = {};
  range.blocks = tiles < most ? static_cast<int32_t>(tiles) : most;
  if (range.blocks == 0) return range;
  range.share = divide(tiles, range.blocks);
  range.longer = static_cast<int32_t>(tiles - range.share * range.blocks);
  return range;
}

// Finds this block's share; walk.left is 0 if it has none. Every warp of the block does that for
// itself: it is faster than waiting for each other.
static __device__ __forceinline__ ShareWalk find_share(const PagedAttentionParams& p,
                                                       const AttentionPlan& plan,
                                                       TileRange& range) {
  const auto lane = static_cast<int>(threadIdx.x % 32);
  // Consecutive sequences for each lane.
  const int64_t per_lane = (p.num_seqs + 31) >> 5;
  const int64_t first = lane * per_lane;
  const int64_t end = first + per_lane < p.num_seqs ? first + per_lane : p.num_seqs;
  int64_t tokens = 0;
  int64_t own = 0;
#pragma unroll 2
  for (int64_t seq = first; seq < end; ++seq) {
    tokens = sequence_tokens(p, seq);
    own += tiles_of(plan, tokens);
  }
  int64_t total;
  int64_t before = scan_lanes(own, total);

  range = share_out(plan, total * plan.units);
  ShareWalk walk = {};
  if (static_cast<int32_t>(blockIdx.x) >= range.blocks) return walk;
  const int64_t begin = range.begin(blockIdx.x);
  // One lane has the sequence that the share begins in.
  const auto lane_of = [&](int64_t tile) {
    const bool is_here = tile >= before * plan.units && tile < (before + own) * plan.units;
    return __ffs(static_cast<int>(__ballot_sync(~0u, is_here))) - 1;
  };
  int source = lane_of(begin);
  int64_t rest = begin - __shfl_sync(~0u, before, source) * plan.units;
  walk.seq = source * per_lane;
  if (per_lane > 1) {
    // Again, with one sequence for each lane.
    for (;; walk.seq += 32, rest -= total * plan.units) {
      const int64_t seq = walk.seq + lane;
      tokens = seq < p.num_seqs ? sequence_tokens(p, seq) : 0;
      own = tiles_of(plan, tokens);
      before = scan_lanes(own, total);
      source = lane_of(rest);
      if (source >= 0) break;
      if (walk.seq + 32 >= p.num_seqs) return {};  // seq_lens has changed meanwhile
    }
    rest -= __shfl_sync(~0u, before, source) * plan.units;
    walk.seq += source;
  }
  walk.left = range.begin(blockIdx.x + 1) - begin;
  walk.seq_len = static_cast<int32_t>(__shfl_sync(~0u, tokens, source));
  walk.tiles = static_cast<int32_t>(tiles_of(plan, walk.seq_len));
  walk.unit = static_cast<int32_t>(divide(rest, walk.tiles));
  walk.tile = static_cast<int32_t>(rest - static_cast<int64_t>(walk.unit) * walk.tiles);
  return walk;
}

// Query heads of a unit.
struct UnitHeads {
  int32_t kv_head;
  int32_t first;
  int32_t count;
};

static __device__ __forceinline__ UnitHeads unit_heads(const AttentionPlan& plan, int32_t unit) {
  const int32_t kv_head = plan.units_per_kv_head == 1 ? unit : unit / plan.units_per_kv_head;
  const int32_t first = (unit - kv_head * plan.units_per_kv_head) * plan.unit_heads;
  const int32_t left = plan.group - first;
  return {kv_head, kv_head * plan.group + first, left < plan.unit_heads ? left : plan.unit_heads};
}

}  // namespace kvops::kernels
