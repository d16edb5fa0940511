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

// What is in a stage.
struct StageInfo {
  int64_t position;  // in the sequence, of the first of 16 tokens
  uint32_t mask;     // bit t: token t exists and has a block
  uint32_t unused;
};

struct Stage {
  const char* keys;
  const char* values;
  StageInfo info;
};

template <class Cache>
class PageLoader {
 public:
  __device__ PageLoader(const PagedAttentionParams& p, const AttentionPlan& plan, char* shared,
                        const TileCursor& cursor)
      : p_(p),
        plan_(plan),
        lane_(static_cast<int>(threadIdx.x % 32)),
        warp_(static_cast<int>(threadIdx.x / 32)),
        stages_(shared + plan.shared.stages + warp_ * plan.stages * plan.shared.stage_bytes),
        infos_(reinterpret_cast<StageInfo*>(shared + plan.shared.stage_masks) +
               warp_ * plan.stages),
        cursor_(cursor),
        next_(look_up()) {
    cursor_.advance(p_, plan_);
  }

  // Starts to fill the next stage, with nothing if there is no further tile.
  __device__ __forceinline__ void load_next() {
    const Tokens tokens = next_;
    if (cursor_.left > 0) {
      // The block ids of the tile after it: they are there when they are needed.
      next_ = look_up();
      cursor_.advance(p_, plan_);
    } else {
      next_.seq_len = 0;
    }
    fill(tokens, slot_);
    commit_copies();
    slot_ = slot_ + 1 == plan_.stages ? 0 : slot_ + 1;
  }

  __device__ __forceinline__ Stage stage(int slot) const {
    const char* keys = stages_ + slot * plan_.shared.stage_bytes;
    return {keys, keys + plan_.shared.key_bytes, infos_[slot]};
  }

 private:
  // 16 tokens, and what the block table says of their two groups of 8.
  struct Tokens {
    int64_t position;
    int64_t seq_len;
    int64_t seq;
    int32_t unit;
    int32_t pages[2];  // of the sequence
    int32_t blocks[2];
  };

  __device__ __forceinline__ Tokens look_up() const {
    Tokens tokens;
    tokens.position = static_cast<int64_t>(cursor_.tile) * (blockDim.x / 2) + warp_ * kWarpTokens;
    tokens.seq_len = cursor_.seq_len;
    tokens.seq = cursor_.seq;
    tokens.unit = cursor_.unit;
    const int32_t* table = p_.block_tables + cursor_.seq * p_.table_seq_stride;
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      const int64_t first = tokens.position + g * kGroupTokens;
      tokens.pages[g] = 0;
      tokens.blocks[g] = -1;
      if (first < tokens.seq_len) {
        tokens.pages[g] = static_cast<int32_t>(plan_.page_tokens.quotient(first));
        tokens.blocks[g] = __ldg(table + tokens.pages[g]);
      }
    }
    return tokens;
  }

  // Bits of the group's tokens that are to be attended to.
  __device__ __forceinline__ uint32_t group_mask(const Tokens& tokens, int g, int head) const {
    const int64_t first = tokens.position + g * kGroupTokens;
    const int64_t left = tokens.seq_len - first;
    if (left <= 0) return 0;
    const int64_t page_start = tokens.pages[g] * p_.block_size;
    if (p_.sparse.active &&
        !sparse_sees(p_.sparse, sparse_shift(p_, head), page_start, tokens.seq_len)) {
      return 0;
    }
    const int64_t block = tokens.blocks[g];
    if (block < 0 || block >= p_.num_blocks) {
      report(tokens, g, first == page_start);
      return 0;
    }
    return ((left < kGroupTokens ? 1u << left : 1u << kGroupTokens) - 1u) << (g * kGroupTokens);
  }

  // Once per entry, not for each of the units and groups that read it. A length that is out of
  // range is on record itself; the entries that it leads to are not to blame.
  __device__ __forceinline__ void report(const Tokens& tokens, int g, bool is_page_start) const {
    if (lane_ != 0 || !is_page_start || (tokens.unit != 0 && !p_.sparse.active)) return;
    if (p_.seq_lens[tokens.seq] != tokens.seq_len) return;
    report_skipped(plan_.skipped_blocks, tokens.seq * p_.max_blocks + tokens.pages[g],
                   tokens.blocks[g]);
  }

  __device__ __forceinline__ void fill(const Tokens& tokens, int slot) {
    uint32_t mask = 0;
    if (tokens.position < tokens.seq_len) {
      const UnitHeads heads = unit_heads(plan_, tokens.unit);
      const uint32_t first = group_mask(tokens, 0, heads.first);
      const uint32_t second = group_mask(tokens, 1, heads.first);
      mask = first | second;
      if (mask != 0) {
        // Addresses are to be valid where nothing is read, too.
        const int use[2] = {first != 0 ? 0 : 1, second != 0 ? 1 : 0};
        char* stage = stages_ + slot * plan_.shared.stage_bytes;
        copy_keys(tokens, use, mask, heads.kv_head, stage);
        copy_values(tokens, use, mask, heads.kv_head, stage + plan_.shared.key_bytes);
      }
    }
    if (lane_ == 0) infos_[slot] = {tokens.position, mask, 0};
  }

  // Where in its page a group starts.
  __device__ __forceinline__ int64_t offset_in_page(const Tokens& tokens, int g) const {
    return tokens.position + g * kGroupTokens - tokens.pages[g] * p_.block_size;
  }

  // A lane copies every second piece of one token: consecutive lanes, consecutive tokens.
  __device__ __forceinline__ void copy_keys(const Tokens& tokens, const int (&use)[2],
                                            uint32_t mask, int kv_head, char* to) const {
    const int token = lane_ % kWarpTokens;
    const int g = token < kGroupTokens ? use[0] : use[1];
    const int block = g == 0 ? tokens.blocks[0] : tokens.blocks[1];
    const int64_t row =
        (g == 0 ? offset_in_page(tokens, 0) : offset_in_page(tokens, 1)) + token % kGroupTokens;
    const int first = lane_ / kWarpTokens;
    const Cache* from = static_cast<const Cache*>(p_.key_cache) + kv_head * p_.key_head_stride +
                        block * p_.key_block_stride + row * p_.x;
    const int64_t pitch = p_.block_size * p_.x;
    const int pieces = static_cast<int>(p_.head_size / p_.x);
    const bool is_token = (mask >> token & 1u) != 0;
    if (plan_.is_aligned && plan_.key_piece_bytes == 16) {
      copy_run<16>(from + first * pitch, 2 * pitch, to + lane_ * 16, 512, first, pieces, 2,
                   is_token ? 16 : 0);
    } else if (plan_.is_aligned) {
      copy_run<8>(from + first * pitch, 2 * pitch, to + lane_ * 8, 256, first, pieces, 2,
                  is_token ? 8 : 0);
    } else {
      const int bytes = plan_.key_piece_bytes;
      copy_elements(from + first * pitch, 2 * pitch, to + lane_ * bytes, 32 * bytes, first, pieces,
                    2, bytes, is_token ? bytes : 0);
    }
  }

  // A lane copies pieces of the same tokens, of different dimensions.
  __device__ __forceinline__ void copy_values(const Tokens& tokens, const int (&use)[2],
                                              uint32_t mask, int kv_head, char* to) const {
    const int bytes = plan_.value_piece_bytes;
    const int piece_tokens = bytes / static_cast<int>(sizeof(Cache));
    const int pieces = kWarpTokens / piece_tokens;  // of a dimension; a power of 2
    const int piece = lane_ & (pieces - 1);
    const int token = piece * piece_tokens;
    const int g = token < kGroupTokens ? use[0] : use[1];
    const int block = g == 0 ? tokens.blocks[0] : tokens.blocks[1];
    const int64_t row =
        (g == 0 ? offset_in_page(tokens, 0) : offset_in_page(tokens, 1)) + token % kGroupTokens;
    const int first = lane_ / pieces;
    const int step = 32 / pieces;
    const Cache* from = static_cast<const Cache*>(p_.value_cache) + kv_head * p_.value_head_stride +
                        block * p_.value_block_stride + row + first * p_.block_size;
    const int64_t pitch = p_.block_size * step;
    // Tokens of a piece that are none are its last ones.
    const int valid =
        __popc(mask >> token & ((1u << piece_tokens) - 1u)) * static_cast<int>(sizeof(Cache));
    char* piece_to = to + piece * plan_.shared.value_pitch + first * 16;
    const int dims = static_cast<int>(p_.head_size);
    if (plan_.is_aligned && bytes == 16) {
      copy_run<16>(from, pitch, piece_to, step * 16, first, dims, step, valid);
    } else if (plan_.is_aligned) {
      copy_run<8>(from, pitch, piece_to, step * 16, first, dims, step, valid);
    } else {
      copy_elements(from, pitch, piece_to, step * 16, first, dims, step, bytes, valid);
    }
  }

  // Pieces first, first + step, ... below `end`, of which `valid` bytes each are to be read.
  template <int kBytes>
  static __device__ __forceinline__ void copy_run(const Cache* from, int64_t pitch, char* to,
                                                  int to_pitch, int first, int end, int step,
                                                  int valid) {
    const char* bytes = reinterpret_cast<const char*>(from);
    const int64_t pitch_bytes = pitch * static_cast<int64_t>(sizeof(Cache));
#pragma unroll 8
    for (int i = first; i < end; i += step) {
      copy_async<kBytes>(to, bytes, valid);
      bytes += pitch_bytes;
      to += to_pitch;
    }
  }

  static __device__ __noinline__ void copy_elements(const Cache* from, int64_t pitch, char* to,
                                                    int to_pitch, int first, int end, int step,
                                                    int piece_bytes, int valid) {
    for (int i = first; i < end; i += step) {
      for (int j = 0; j * static_cast<int>(sizeof(Cache)) < piece_bytes; ++j) {
        Cache elem = {};
        if (j * static_cast<int>(sizeof(Cache)) < valid) elem = from[j];
        reinterpret_cast<Cache*>(to)[j] = elem;
      }
      from += pitch;
      to += to_pitch;
    }
  }

  const PagedAttentionParams& p_;
  const AttentionPlan& plan_;
  int lane_;
  int warp_;
  char* stages_;
  StageInfo* infos_;
  TileCursor cursor_;
  Tokens next_;
  int slot_ = 0;
};

}  // namespace kvops::kernels
