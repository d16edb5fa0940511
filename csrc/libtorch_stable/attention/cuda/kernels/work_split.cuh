// Which tiles a block attends to: contiguous shares of all (sequence, unit, tile), equal to one
// tile, from the lengths that are on the device. A tile is `warps` x 16 tokens of one unit; tiles
// of a sequence's units follow each other. Depends on lengths and grid only, never on timing: equal
// calls split equally.
#pragma once

#include <cstdint>

#include "attention/cuda/kernels/plan.h"

namespace kvops::kernels {

// Fewest tiles of a block: below that, more blocks cost more than they gain.
inline constexpr int64_t kMinShareTiles = 1;

static __device__ __forceinline__ int64_t clamped_length(const PagedAttentionParams& p,
                                                         int64_t length) {
  return length < 0 ? 0 : length < p.max_tokens ? length : p.max_tokens;
}

static __device__ __forceinline__ int64_t sequence_tokens(const PagedAttentionParams& p,
                                                          int64_t seq) {
  return clamped_length(p, __ldg(p.seq_lens + seq));
}

static __device__ __forceinline__ int64_t tiles_of(int64_t tokens) {
  // blockDim.x / 2 tokens, a power of 2.
  return (tokens + blockDim.x / 2 - 1) >> (__ffs(static_cast<int>(blockDim.x)) - 2);
}

// The tiles of all blocks, and how they are shared out.
struct TileRange {
  int64_t tiles;   // of all sequences
  int64_t blocks;  // that have any

  __device__ int64_t begin(int64_t block) const { return block * tiles / blocks; }
  // The block that has this tile.
  __device__ int64_t block_of(int64_t tile) const { return ((tile + 1) * blocks - 1) / tiles; }
};

// A walk over tiles.
struct TileCursor {
  int64_t left;  // tiles from here to the end of the share, this one included
  int64_t seq;
  int32_t seq_len;
  int32_t tiles;  // of the unit
  int32_t tile;
  int32_t unit;

  __device__ __forceinline__ void advance(const PagedAttentionParams& p,
                                          const AttentionPlan& plan) {
    if (--left == 0) return;
    if (++tile < tiles) return;
    tile = 0;
    if (++unit < plan.units) return;
    unit = 0;
    // There is a tile left, so there is another sequence with tokens.
    do {
      seq_len = static_cast<int32_t>(sequence_tokens(p, ++seq));
    } while (seq_len == 0);
    tiles = static_cast<int32_t>(tiles_of(seq_len));
  }
};

// What the threads of a block tell each other.
struct BlockScratch {
  TileRange range;
  int64_t sums[kMaxWarps];
  int64_t seq;
  int64_t rest;
  int32_t arrived;
};
static_assert(sizeof(BlockScratch) <= kScratchBytes);

static __device__ __forceinline__ BlockScratch& block_scratch(const AttentionPlan& plan,
                                                              char* shared) {
  return *reinterpret_cast<BlockScratch*>(shared + plan.shared.scratch);
}

// Tiles (of one unit) of the sequences before the thread's own ones, and of all.
static __device__ __forceinline__ int64_t scan_tiles(int64_t own, int64_t (&sums)[kMaxWarps],
                                                     int64_t& total) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  int64_t sum = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int64_t other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) sums[warp] = sum;
  __syncthreads();
  int64_t before = sum - own;
  total = 0;
  for (int i = 0; i < static_cast<int>(blockDim.x) / 32; ++i) {
    if (i < warp) before += sums[i];
    total += sums[i];
  }
  return before;
}

// Finds this block's share; cursor.left is 0 if it has none. Every thread of the block calls it.
static __device__ __forceinline__ void find_share(const PagedAttentionParams& p,
                                                  const AttentionPlan& plan, char* shared,
                                                  TileCursor& cursor) {
  BlockScratch& scratch = block_scratch(plan, shared);
  const int64_t per_thread = (p.num_seqs + blockDim.x - 1) / blockDim.x;
  const int64_t first = threadIdx.x * per_thread;
  const int64_t end = first + per_thread < p.num_seqs ? first + per_thread : p.num_seqs;
  int64_t own = 0;
  for (int64_t seq = first; seq < end; ++seq) own += tiles_of(sequence_tokens(p, seq));
  int64_t total;
  const int64_t before = scan_tiles(own, scratch.sums, total);

  TileRange range = {total * plan.units, 0};
  const int64_t most = (range.tiles + kMinShareTiles - 1) / kMinShareTiles;
  range.blocks = most < gridDim.x ? most : gridDim.x;
  cursor = {};
  if (blockIdx.x >= range.blocks) return;
  const int64_t begin = range.begin(blockIdx.x);
  // One thread has the sequence that the share begins in.
  if (begin >= before * plan.units && begin < (before + own) * plan.units) {
    int64_t seq = first;
    int64_t rest = begin - before * plan.units;
    int64_t tiles = tiles_of(sequence_tokens(p, seq));
    while (rest >= tiles * plan.units) {
      rest -= tiles * plan.units;
      tiles = tiles_of(sequence_tokens(p, ++seq));
    }
    scratch.range = range;
    scratch.seq = seq;
    scratch.rest = rest;
  }
  __syncthreads();
  cursor.left = range.begin(blockIdx.x + 1) - begin;
  cursor.seq = scratch.seq;
  cursor.seq_len = static_cast<int32_t>(sequence_tokens(p, cursor.seq));
  cursor.tiles = static_cast<int32_t>(tiles_of(cursor.seq_len));
  cursor.unit = static_cast<int32_t>(scratch.rest / cursor.tiles);
  cursor.tile = static_cast<int32_t>(scratch.rest % cursor.tiles);
}

// Query heads of a unit.
struct UnitHeads {
  int32_t kv_head;
  int32_t first;
  int32_t count;
};

static __device__ __forceinline__ UnitHeads unit_heads(const AttentionPlan& plan, int32_t unit) {
  const int32_t kv_head = unit / plan.units_per_kv_head;
  const int32_t first = (unit - kv_head * plan.units_per_kv_head) * plan.unit_heads;
  const int32_t left = plan.group - first;
  return {kv_head, kv_head * plan.group + first, left < plan.unit_heads ? left : plan.unit_heads};
}

}  // namespace kvops::kernels
