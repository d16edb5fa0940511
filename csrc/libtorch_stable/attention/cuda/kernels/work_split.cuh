// Which tiles a block attends to, from the lengths that are on the device: contiguous shares of all
// (sequence, unit, tile), equal to one tile. Or, where that makes no share much longer, shares that
// end where units do: in a share of two units, one is added up while nothing else gets on. A tile
// is `tile_warps` x 16 tokens of one unit; tiles of a sequence's units follow each other. Depends
// on lengths and grid only, never on timing: equal calls split equally.
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

// Tiles that are shared out to blocks: the first `longer` blocks have one more.
struct TileRange {
  int64_t share;  // tiles of each of the other blocks
  int32_t longer;

  __device__ __forceinline__ TileRange(int64_t tiles, int32_t among)
      : share(divide(tiles, among)), longer(static_cast<int32_t>(tiles - share * among)) {}

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

// Blocks that have tiles of the same unit.
struct UnitBlocks {
  int32_t first;
  int32_t count;
};

// A block's share, as pieces of units: a piece is tiles [tile, tile + piece_tiles()) of a unit.
struct ShareWalk {
  int64_t left;  // tiles from here to the end of the share
  int64_t seq;
  int32_t seq_len;
  int32_t tiles;  // of the unit
  int32_t tile;
  int32_t unit;
  UnitBlocks blocks;  // of the unit; none if blocks have equal shares of all tiles

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

static __device__ __forceinline__ uint32_t sum_of_lanes(uint32_t own) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_add_sync(~0u, own);
#else
#pragma unroll 1
  for (int step = 16; step > 0; step /= 2) own += __shfl_xor_sync(~0u, own, step);
  return own;
#endif
}

// The sum of the lanes before, and of all.
template <class Int>
static __device__ __forceinline__ Int scan_lanes(Int own, Int& total) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  Int sum = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const Int other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  total = __shfl_sync(~0u, sum, 31);
  return sum - own;
}

// How many blocks tiles are shared out to, at most. With few tiles, there are fewer blocks: adding
// up what more of them find costs more than they gain.
inline constexpr int64_t kFewTiles = 8;
static __device__ __forceinline__ bool are_few(int64_t tiles) {
  return tiles < kFewTiles * gridDim.x;
}

// How many tiles longer shares may be for ending where units do.
inline constexpr uint32_t kLongerShare = 2;

// Parts of a unit of so many tokens: its tiles, `share` at a time.
template <class Int>
static __device__ __forceinline__ Int parts_of_unit(const AttentionPlan& plan, int64_t tokens,
                                                    uint32_t share) {
  const auto tiles = static_cast<Int>(tiles_of(plan, tokens));
  return share == 1 ? tiles : (tiles + share - 1) / share;
}

// Consecutive sequences for each lane.
struct LaneSeqs {
  int64_t count;  // the last lanes may have fewer
  int64_t first;
  int64_t tokens;  // of the first one

  __device__ __forceinline__ explicit LaneSeqs(const PagedAttentionParams& p)
      : count((p.num_seqs + 31) >> 5),
        first(static_cast<int>(threadIdx.x % 32) * count),
        tokens(first < p.num_seqs ? sequence_tokens(p, first) : 0) {}

  template <class Int>
  __device__ __forceinline__ Int parts(const PagedAttentionParams& p, const AttentionPlan& plan,
                                       uint32_t share) const {
    const int64_t end = first + count < p.num_seqs ? first + count : p.num_seqs;
    Int sum = parts_of_unit<Int>(plan, tokens, share);
#pragma unroll 2
    for (int64_t seq = first + 1; seq < end; ++seq) {
      sum += parts_of_unit<Int>(plan, sequence_tokens(p, seq), share);
    }
    return sum;
  }
};

// All parts of all units in a row, and the lanes' prefix sums of them.
template <class Int>
struct PartRow {
  uint32_t share;
  Int own;
  Int before;
  Int total;

  __device__ __forceinline__ PartRow(const PagedAttentionParams& p, const AttentionPlan& plan,
                                     const LaneSeqs& seqs, uint32_t share)
      : share(share), own(seqs.parts<Int>(p, plan, share)), before(scan_lanes(own, total)) {}

  // Where a part is. False if seq_lens has changed meanwhile.
  __device__ __forceinline__ bool find(const PagedAttentionParams& p, const AttentionPlan& plan,
                                       const LaneSeqs& seqs, Int at, ShareWalk& walk, int32_t& part,
                                       int32_t& parts) {
    const auto lane = static_cast<int>(threadIdx.x % 32);
    const auto units = static_cast<Int>(plan.units);
    // One lane has the sequence.
    const auto lane_of = [&](Int part) {
      const bool is_here = part >= before * units && part < (before + own) * units;
      return __ffs(static_cast<int>(__ballot_sync(~0u, is_here))) - 1;
    };
    int64_t tokens = seqs.tokens;
    int source = lane_of(at);
    walk.seq = source * seqs.count;
    at -= __shfl_sync(~0u, before, source) * units;
    if (seqs.count > 1) {
      // Again, with one sequence for each lane.
      for (;; walk.seq += 32, at -= total * units) {
        const int64_t seq = walk.seq + lane;
        tokens = seq < p.num_seqs ? sequence_tokens(p, seq) : 0;
        own = parts_of_unit<Int>(plan, tokens, share);
        before = scan_lanes(own, total);
        source = lane_of(at);
        if (source >= 0) break;
        if (walk.seq + 32 >= p.num_seqs) return false;
      }
      at -= __shfl_sync(~0u, before, source) * units;
      walk.seq += source;
    }
    walk.seq_len = static_cast<int32_t>(__shfl_sync(~0u, tokens, source));
    walk.tiles = static_cast<int32_t>(tiles_of(plan, walk.seq_len));
    parts = static_cast<int32_t>(__shfl_sync(~0u, own, source));
    walk.unit = static_cast<int32_t>(divide(at, parts));
    part = static_cast<int32_t>(at - static_cast<Int>(walk.unit) * static_cast<Int>(parts));
    return true;
  }
};

// Equal shares of all tiles; `range` says which block has which.
static __device__ __forceinline__ ShareWalk equal_share(const PagedAttentionParams& p,
                                                        const AttentionPlan& plan,
                                                        const LaneSeqs& seqs, TileRange& range) {
  PartRow<int64_t> tiles(p, plan, seqs, 1);
  const int64_t total = tiles.total * plan.units;
  const auto most = static_cast<int64_t>(are_few(total) ? plan.few_blocks : gridDim.x);
  ShareWalk walk = {};
  const auto block = static_cast<int32_t>(blockIdx.x);
  if (block >= (total < most ? total : most)) return walk;
  range = TileRange(total, static_cast<int32_t>(total < most ? total : most));
  const int64_t begin = range.begin(block);
  int32_t parts;
  if (tiles.find(p, plan, seqs, begin, walk, walk.tile, parts)) {
    walk.left = range.begin(block + 1) - begin;
  }
  return walk;
}

// Shares that end where units do; false if they would be too long.
static __device__ __forceinline__ bool aligned_share(const PagedAttentionParams& p,
                                                     const AttentionPlan& plan,
                                                     const LaneSeqs& seqs, ShareWalk& walk) {
  const auto units = static_cast<uint32_t>(plan.units);
  const uint32_t tiles = sum_of_lanes(seqs.parts<uint32_t>(p, plan, 1)) * units;
  if (tiles == 0) return true;
  const bool is_few = are_few(tiles);
  const uint32_t most = is_few ? static_cast<uint32_t>(plan.few_blocks) : gridDim.x;
  const NarrowDivisor& divisor = is_few ? plan.by_few_blocks : plan.by_grid;
  const uint32_t shortest = divisor.quotient(tiles + most - 1);
  const uint32_t longest = shortest + kLongerShare;
  if (sum_of_lanes(seqs.parts<uint32_t>(p, plan, longest)) * units > most) return false;
#pragma unroll 1
  for (uint32_t share = shortest; share <= longest; ++share) {
    PartRow<uint32_t> blocks(p, plan, seqs, share);
    if (blocks.total * units > most) continue;
    if (blockIdx.x >= blocks.total * units) return true;
    int32_t part;
    int32_t parts;
    if (!blocks.find(p, plan, seqs, blockIdx.x, walk, part, parts)) return true;
    walk.tile = part * static_cast<int32_t>(share);
    const int32_t left = walk.tiles - walk.tile;
    walk.left = left < static_cast<int32_t>(share) ? left : static_cast<int32_t>(share);
    walk.blocks = {static_cast<int32_t>(blockIdx.x) - part, parts};
    return true;
  }
  return false;
}

// Finds this block's share; walk.left is 0 if it has none. Every warp of the block does that for
// itself: it is faster than waiting for each other. `range` says which block has which tile, where
// walk.blocks does not.
static __device__ __forceinline__ ShareWalk find_share(const PagedAttentionParams& p,
                                                       const AttentionPlan& plan,
                                                       TileRange& range) {
  const LaneSeqs seqs(p);
  ShareWalk walk = {};
  if (plan.may_align && aligned_share(p, plan, seqs, walk)) return walk;
  return equal_share(p, plan, seqs, range);
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
