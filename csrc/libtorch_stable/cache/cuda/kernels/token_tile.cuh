// Some tokens' columns in shared memory, between a load by tokens and a store by pages; and where
// the tokens of the tile go. Used by the reshape_and_cache kernel only.
// One warp plans while the others load: a tile has at most one token per lane.
#pragma once

#include <cstdint>

#include "cache/cuda/kernels/slots.cuh"

namespace kvops::kernels {

inline constexpr int kTileTokens = 32;

// Rows are padded so that neither the same column of neighbouring tokens (in units of 16 bytes)
// nor neighbouring columns of tokens 4, 8 or 16 apart (in elements) share a bank.
template <class Stored, int kColumns>
struct TokenTile {
  static constexpr int kRowBytes = kColumns * static_cast<int>(sizeof(Stored));
  static constexpr int kPitchBytes = kRowBytes + 16;
  static constexpr int kSkewBytes = 32;

  alignas(16) char bytes[kTileTokens * kPitchBytes + (kTileTokens / 8) * kSkewBytes];

  __device__ __forceinline__ char* at(int token, int column) {
    return bytes + token * kPitchBytes + token / 8 * kSkewBytes +
           column * static_cast<int>(sizeof(Stored));
  }
};

// Tokens that are neighbours in the tile and in a group of the cache, within one wide store.
struct TokenPiece {
  int64_t base;  // in elements: head 0, element 0 of the first token
  int first;     // token of the tile
  int count;
};

struct TilePlan {
  int64_t bases[kTileTokens];  // of each token; -1: not written
  TokenPiece pieces[kTileTokens];
  int num_pieces;
};

// How the tokens of a block lie in a cache, in elements.
struct TokenLayout {
  int64_t block_stride;
  int64_t group_stride;
  int64_t offset_stride;
  Divisor group_tokens;
  int piece_tokens;  // a power of two: pieces begin at its multiples within a group
};

// To be called by one warp; `slot` is that of the lane's token, -1 if it has none.
__device__ inline void plan_tile(TilePlan& plan, const TokenLayout& layout, const Slots& slots,
                                 int64_t slot) {
  constexpr unsigned kAll = 0xffffffffu;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool written = slots.is_written(slot);
  int64_t base = -1;
  bool on_boundary = false;
  if (written) {
    const int64_t block = slots.block_size.quotient(slot);
    const int64_t offset = slots.block_size.remainder(slot, block);
    const int64_t group = layout.group_tokens.quotient(offset);
    const int64_t in_group = layout.group_tokens.remainder(offset, group);
    base =
        block * layout.block_stride + group * layout.group_stride + in_group * layout.offset_stride;
    on_boundary = (in_group & (layout.piece_tokens - 1)) == 0;
  }
  const int64_t slot_before = __shfl_up_sync(kAll, slot, 1);
  const bool begins = written && (on_boundary || lane == 0 || slot_before != slot - 1);
  const unsigned beginning = __ballot_sync(kAll, begins);
  const unsigned ends = beginning | ~__ballot_sync(kAll, written);
  plan.bases[lane] = base;
  if (begins) {
    const unsigned later_ends = lane == 31 ? 0 : ends & (kAll << (lane + 1));
    const int end = later_ends == 0 ? 32 : __ffs(static_cast<int>(later_ends)) - 1;
    plan.pieces[__popc(beginning & ~(kAll << lane))] = {base, lane, end - lane};
  }
  if (lane == 0) plan.num_pieces = __popc(beginning);
}

}  // namespace kvops::kernels
