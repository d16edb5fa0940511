// Brings the keys and values of 16 tokens at a time from their pages into a warp's shared memory,
// several tiles ahead of the computation. The only code that knows where tokens are in a cache. A
// stage holds keys [head_size / x][16 tokens][x] and values [16 / n][head_size][n tokens] with n
// the tokens of a piece; what is no token of the sequence is 0 there, whatever the page holds.
#pragma once

#include <cstdint>

#include "attention/block_sparse.h"
#include "attention/cuda/kernels/async_copy.cuh"
#include "attention/cuda/kernels/plan.h"
#include "attention/cuda/kernels/work_split.cuh"
#include "common/cuda/skipped.cuh"

namespace kvops::kernels {

// What is in a stage, and where that is in the block's share.
struct StageInfo {
  TileCursor at;
  uint32_t position;  // in the sequence, of the warp's first token
  uint32_t mask;      // bit t: token t exists and has a block
};
static_assert(sizeof(StageInfo) <= kStageInfoBytes);

struct Stage {
  const char* keys;
  const char* values;
  const StageInfo* info;
};

// kIsAligned: plan.is_aligned is known to be true.
template <class Cache, bool kIsAligned>
class PageLoader {
 public:
  // There must be a tile left.
  __device__ PageLoader(const PagedAttentionParams& p, const AttentionPlan& plan, char* shared,
                        const TileCursor& cursor)
      : p_(p),
        plan_(plan),
        stages_(shared + plan.shared.stages + warp() * plan.stages * plan.shared.stage_bytes),
        infos_(reinterpret_cast<StageInfo*>(shared + plan.shared.stage_infos) +
               warp() * plan.stages),
        cursor_(cursor) {
    look_up();
  }

  // Starts to fill the next stage, with nothing if there is no further tile.
  __device__ __forceinline__ void load_next() {
    if (cursor_.left > 0) {
      const uint32_t mask = fill(slot_);
      if (lane() == 0) infos_[slot_] = {cursor_, position(), mask};
      cursor_.advance(p_, plan_);
      // Block ids are looked up one tile before they are needed.
      if (cursor_.left > 0) look_up();
    }
    commit_copies();
    slot_ = slot_ + 1 == plan_.stages ? 0 : slot_ + 1;
  }

  __device__ __forceinline__ Stage stage(int slot) const {
    const char* keys = stages_ + slot * plan_.shared.stage_bytes;
    return {keys, keys + plan_.shared.key_bytes, infos_ + slot};
  }

 private:
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % 32); }
  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x / 32); }

  // Of the warp's first token at the cursor. Below 2^31 + 64.
  __device__ __forceinline__ uint32_t position() const {
    return static_cast<uint32_t>(cursor_.tile) * (blockDim.x / 2) +
           static_cast<uint32_t>(warp() * kWarpTokens);
  }

  // A group of 8 tokens.
  __device__ __forceinline__ uint32_t group_start(int g) const {
    return position() + static_cast<uint32_t>(g * kGroupTokens);
  }
  __device__ __forceinline__ bool has_tokens(int g) const {
    return group_start(g) < static_cast<uint32_t>(cursor_.seq_len);
  }
  // Where in the sequence's table its block is.
  __device__ __forceinline__ int64_t page(int g) const {
    return plan_.page_tokens.quotient(group_start(g));
  }

  __device__ __forceinline__ void look_up() {
    const int32_t* table = p_.block_tables + cursor_.seq * p_.table_seq_stride;
#pragma unroll
    for (int g = 0; g < 2; ++g) blocks_[g] = has_tokens(g) ? __ldg(table + page(g)) : -1;
  }

  // Bits of the group's tokens that are to be attended to.
  __device__ __forceinline__ uint32_t group_mask(int g, int64_t page, int head) const {
    if (!has_tokens(g)) return 0;
    const int64_t page_start = page * p_.block_size;
    if (p_.sparse.active &&
        !sparse_sees(p_.sparse, sparse_shift(p_, head), page_start, cursor_.seq_len)) {
      return 0;
    }
    const int64_t block = blocks_[g];
    if (block < 0 || block >= p_.num_blocks) {
      if (group_start(g) == page_start) report(page, block);
      return 0;
    }
    const uint32_t left = static_cast<uint32_t>(cursor_.seq_len) - group_start(g);
    return ((left < kGroupTokens ? 1u << left : 1u << kGroupTokens) - 1u) << (g * kGroupTokens);
  }

  // Once per entry, not for each of the units and groups that read it. A length that is out of
  // range is on record itself; the entries that it leads to are not to blame.
  __device__ __forceinline__ void report(int64_t page, int64_t block) const {
    if (lane() != 0 || (cursor_.unit != 0 && !p_.sparse.active)) return;
    if (p_.seq_lens[cursor_.seq] != cursor_.seq_len) return;
    report_skipped(plan_.skipped_blocks, cursor_.seq * p_.max_blocks + page, block);
  }

  // A group's place in the cache.
  struct Place {
    int64_t block;
    int64_t row;  // token within the page
  };

  // Gives the mask of the 16 tokens.
  __device__ __forceinline__ uint32_t fill(int slot) const {
    if (!has_tokens(0)) return 0;
    const UnitHeads heads = unit_heads(plan_, cursor_.unit);
    const int64_t pages[2] = {page(0), page(1)};
    const uint32_t masks[2] = {group_mask(0, pages[0], heads.first),
                               group_mask(1, pages[1], heads.first)};
    const uint32_t mask = masks[0] | masks[1];
    if (mask == 0) return 0;
    Place places[2];
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      places[g] = {blocks_[g], group_start(g) - pages[g] * p_.block_size};
    }
    // Addresses are to be valid where nothing is read, too.
    if (masks[0] == 0) places[0] = places[1];
    if (masks[1] == 0) places[1] = places[0];
    char* stage = stages_ + slot * plan_.shared.stage_bytes;
    copy_keys(places, mask, heads.kv_head, stage);
    copy_values(places, mask, heads.kv_head, stage + plan_.shared.key_bytes);
    return mask;
  }

  // A lane copies every second piece of one token: consecutive lanes, consecutive tokens.
  __device__ __forceinline__ void copy_keys(const Place (&places)[2], uint32_t mask, int kv_head,
                                            char* to) const {
    const int token = lane() % kWarpTokens;
    const Place& place = token < kGroupTokens ? places[0] : places[1];
    const int first = lane() / kWarpTokens;
    const int64_t pitch = p_.block_size * p_.x;
    const Cache* from = static_cast<const Cache*>(p_.key_cache) + kv_head * p_.key_head_stride +
                        place.block * p_.key_block_stride +
                        (place.row + token % kGroupTokens) * p_.x + first * pitch;
    const int bytes = plan_.key_piece_bytes;
    const Run run = {from,       2 * pitch, to + lane() * bytes,
                     32 * bytes, first,     static_cast<int>(p_.head_size / p_.x),
                     2};
    copy_run(run, bytes, (mask >> token & 1u) != 0 ? bytes : 0);
  }

  // A lane copies pieces of the same tokens, of different dimensions.
  __device__ __forceinline__ void copy_values(const Place (&places)[2], uint32_t mask, int kv_head,
                                              char* to) const {
    constexpr int kElem = static_cast<int>(sizeof(Cache));
    const int bytes = plan_.value_piece_bytes;
    const int piece_tokens = bytes / kElem;
    const int pieces = kWarpTokens / piece_tokens;  // of a dimension; a power of 2
    const int piece = lane() & (pieces - 1);
    const int token = piece * piece_tokens;
    const Place& place = token < kGroupTokens ? places[0] : places[1];
    const int first = lane() / pieces;
    const int step = 32 / pieces;
    const Cache* from = static_cast<const Cache*>(p_.value_cache) + kv_head * p_.value_head_stride +
                        place.block * p_.value_block_stride + place.row + token % kGroupTokens +
                        first * p_.block_size;
    // Tokens of a piece that are none are its last ones.
    const int valid = __popc(mask >> token & ((1u << piece_tokens) - 1u)) * kElem;
    const Run run = {from,
                     p_.block_size * step,
                     to + piece * plan_.shared.value_pitch + first * 16,
                     step * 16,
                     first,
                     static_cast<int>(p_.head_size),
                     step};
    copy_run(run, bytes, valid);
  }

  // Pieces first, first + step, ... below end. Pitches are those of a step.
  struct Run {
    const Cache* from;
    int64_t pitch;
    char* to;
    int to_pitch_bytes;
    int first;
    int end;
    int step;
  };

  // Of each piece's bytes, `valid` are to be read.
  __device__ __forceinline__ void copy_run(const Run& run, int bytes, int valid) const {
    if (!kIsAligned && !plan_.is_aligned) {
      copy_elements(run, bytes, valid);
    } else if (bytes == 16) {
      copy_pieces<16>(run, valid);
    } else {
      copy_pieces<8>(run, valid);
    }
  }

  template <int kBytes>
  static __device__ __forceinline__ void copy_pieces(const Run& run, int valid) {
    const char* from = reinterpret_cast<const char*>(run.from);
    const int64_t pitch_bytes = run.pitch * static_cast<int64_t>(sizeof(Cache));
    char* to = run.to;
#pragma unroll 4
    for (int i = run.first; i < run.end; i += run.step) {
      copy_async<kBytes>(to, from, valid);
      from += pitch_bytes;
      to += run.to_pitch_bytes;
    }
  }

  static __device__ __noinline__ void copy_elements(Run run, int bytes, int valid) {
    constexpr int kElem = static_cast<int>(sizeof(Cache));
    for (int i = run.first; i < run.end; i += run.step) {
      for (int j = 0; j * kElem < bytes; ++j) {
        Cache elem = {};
        if (j * kElem < valid) elem = run.from[j];
        reinterpret_cast<Cache*>(run.to)[j] = elem;
      }
      run.from += run.pitch;
      run.to += run.to_pitch_bytes;
    }
  }

  const PagedAttentionParams& p_;
  const AttentionPlan& plan_;
  char* stages_;
  StageInfo* infos_;
  TileCursor cursor_;  // the tile that comes next
  int32_t blocks_[2];  // of its two groups; -1 where there is no token
  int slot_ = 0;
};

}  // namespace kvops::kernels
