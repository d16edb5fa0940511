// How threads take tokens that stay whole in the cache, or go there element by element: a thread
// moves the same unit of a head of several tokens, so that it computes what depends on the unit
// only once and has several loads under way.
// Used by the kernels of the cache writers. What a unit becomes, and where, is their business.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/launch.cuh"
#include "common/cuda/slots.cuh"

namespace kvops::kernels {

// Tokens of a thread, unless there are few: more of them share more of the arithmetic, but then
// blocks read and write in larger steps, which memory likes less.
inline constexpr int kManyTokens = 2;

// A block takes tokens x columns, a column being a unit of one of the heads. Neighbouring threads
// take 2^neighbours_log2 neighbouring tokens, then neighbouring columns, then further tokens.
struct UnitWalk {
  const char* src;
  int64_t token_stride_bytes;
  int64_t head_stride_bytes;
  int64_t step_bytes;  // between a thread's tokens
  int64_t tiles;       // thread blocks
  uint32_t columns;
  uint32_t step_tokens;
  uint32_t lanes;  // columns of a block
  int neighbours_log2;
  NarrowDivisor units_per_head;
  NarrowDivisor chunks;  // thread blocks that share tokens
  NarrowDivisor lane_count;
  bool reports;  // skipped slots
};

// Moves a tile, with all threads of the block. store_of(head, unit) makes what is then called for
// each token: (block, offset, value).
template <uint32_t kTokens, class In, class Indices, class StoreOf>
__device__ __forceinline__ void move_units(const UnitWalk& w, const Slots<Indices>& slots,
                                           uint32_t tile, const StoreOf& store_of) {
  using Count = typename Indices::Count;
  const auto [token_tile, chunk] = w.chunks.divide(tile);
  const auto [row, lane] = w.lane_count.divide(threadIdx.x >> w.neighbours_log2);
  const uint32_t in_step =
      (row << w.neighbours_log2) + (threadIdx.x & ((uint32_t{1} << w.neighbours_log2) - 1));
  const uint32_t column = chunk * w.lanes + lane;
  if (in_step >= w.step_tokens || column >= w.columns) return;
  const Count first = Count{token_tile} * (w.step_tokens * kTokens) + in_step;
  const auto [head, unit] = w.units_per_head.divide(column);
  const char* from = w.src + first * w.token_stride_bytes + head * w.head_stride_bytes +
                     uint64_t{unit} * sizeof(In);
  const int64_t* slot_of = slots.of_tokens + first;
  In values[kTokens];
  int64_t slot[kTokens];
#pragma unroll
  for (uint32_t j = 0; j < kTokens; ++j) {
    slot[j] = -1;
    if (first + j * w.step_tokens < slots.tokens) {
      slot[j] = slot_of[j * w.step_tokens];
      values[j] = *reinterpret_cast<const In*>(from + j * w.step_bytes);
    }
  }
  const auto store = store_of(head, unit);
#pragma unroll
  for (uint32_t j = 0; j < kTokens; ++j) {
    if (slots.is_written(slot[j])) {
      const auto [block, offset] = slots.split(slot[j]);
      store(block, offset, values[j]);
    }
  }
  if (!w.reports || column != 0) return;
  // Last, when no call can take registers from what is still to be stored.
#pragma unroll
  for (uint32_t j = 0; j < kTokens; ++j) {
    if (!slots.is_written(slot[j])) slots.report(first + j * w.step_tokens, slot[j]);
  }
}

// The tile of a thread block of a writer of two sides: side 0 comes first.
struct SideTile {
  uint32_t side;
  uint32_t tile;
};

#if defined(__CUDACC__)
static __device__ __forceinline__ SideTile side_tile(uint32_t first_tiles) {
  const bool is_second = blockIdx.x >= first_tiles;
  return {is_second, is_second ? blockIdx.x - first_tiles : blockIdx.x};
}
#endif

// ---- launch

struct UnitSource {
  const char* src;
  int64_t token_stride_bytes;
  int64_t head_stride_bytes;
  int64_t units_per_head;
};

// For blocks of so many threads, and tokens of a thread. A token of 2^31 units or more has too many
// tiles to launch.
inline UnitWalk unit_walk(const UnitSource& source, int64_t tokens, int64_t heads, int threads,
                          int tokens_per_thread, int neighbours_log2) {
  const int64_t columns = source.units_per_head * heads;
  const int64_t room = threads >> neighbours_log2;
  const int64_t chunks = columns > room ? (columns + room - 1) / room : 1;
  const int64_t lanes = columns > 0 ? (columns + chunks - 1) / chunks : 1;
  const int64_t step_tokens = room / lanes << neighbours_log2;
  const int64_t tile_tokens = step_tokens * tokens_per_thread;
  return {
      .src = source.src,
      .token_stride_bytes = source.token_stride_bytes,
      .head_stride_bytes = source.head_stride_bytes,
      .step_bytes = step_tokens * source.token_stride_bytes,
      .tiles = columns > NarrowDivisor::kEnd - 1 ? INT64_MAX
               : columns > 0                     ? (tokens + tile_tokens - 1) / tile_tokens * chunks
                                                 : 0,
      .columns = static_cast<uint32_t>(columns),
      .step_tokens = static_cast<uint32_t>(step_tokens),
      .lanes = static_cast<uint32_t>(lanes),
      .neighbours_log2 = neighbours_log2,
      .units_per_head = NarrowDivisor(source.units_per_head),
      .chunks = NarrowDivisor(chunks),
      .lane_count = NarrowDivisor(lanes),
      .reports = false,
  };
}

// Launches a writer of two sides: as many thread blocks as both have tiles, since a block without a
// tile would still take its turn.
template <class Writer>
cudaError_t launch_tiles(void (*kernel)(Writer), Writer& w, int64_t first_tiles,
                         int64_t second_tiles, int threads, cudaStream_t stream) {
  if (first_tiles > INT32_MAX || second_tiles > INT32_MAX - first_tiles) {
    return cudaErrorInvalidConfiguration;
  }
  const unsigned blocks = static_cast<unsigned>(first_tiles + second_tiles);
  if (blocks == 0) return cudaSuccess;
  w.first_tiles = static_cast<uint32_t>(first_tiles);
  return launch_kernel(kernel, blocks, static_cast<unsigned>(threads), stream, w);
}

// The same for a writer whose sides are alike; skipped slots are reported once.
template <class Writer>
cudaError_t launch_both_sides(void (*kernel)(Writer), Writer& w, int threads, cudaStream_t stream) {
  const int64_t tiles[2] = {w.sides[0].walk.tiles, w.sides[1].walk.tiles};
  w.sides[tiles[0] > 0 ? 0 : 1].walk.reports = true;
  return launch_tiles(kernel, w, tiles[0], tiles[1], threads, stream);
}

}  // namespace kvops::kernels
