// Brings keys and values from their pages into the stages of a block, tiles ahead of the
// computation: the work of two warps of each group, one for keys and one for values. The only code
// that knows where tokens are in a cache: another layout of pages is another set of strides here.
// What is no token of the sequence holds anything in a stage; masks say so.
#pragma once

#include <cstdint>

#include "attention/block_sparse.h"
#include "attention/cuda/kernels/async_copy.cuh"
#include "attention/cuda/kernels/combine_units.cuh"
#include "attention/cuda/kernels/plan.h"
#include "attention/cuda/kernels/stage_barriers.cuh"
#include "attention/cuda/kernels/work_split.cuh"
#include "common/cuda/skipped.cuh"

namespace kvops::kernels {

struct StageInfo {
  // Of each warp of a group: bit t says that its token t exists and has a block. Written as words
  // of 64 bits: the first token's bit is the lowest one.
  uint16_t masks[kMaxTileWarps];
};
inline constexpr int kMaskTokens = 64;  // of a word
static_assert(kMaxTileWarps * kWarpTokens == 2 * kMaskTokens);
static_assert(sizeof(StageInfo) == kStageInfoBytes);

static __device__ __forceinline__ StageInfo* stage_info(const AttentionPlan& plan, char* shared,
                                                        int slot) {
  return reinterpret_cast<StageInfo*>(shared + plan.shared.stage_infos + slot * kStageInfoBytes);
}

// kMayBeUnaligned: plan.copy may be kElements.
template <class Cache, bool kMayBeUnaligned>
class PageLoader {
 public:
  __device__ PageLoader(const PagedAttentionParams& p, const AttentionPlan& plan, char* shared,
                        int loader)
      : p_(p),
        plan_(plan),
        shared_(shared),
        barriers_(plan, shared),
        lane_(static_cast<int>(threadIdx.x % 32)),
        group_(loader / kLoaderWarps),
        loads_keys_(loader % kLoaderWarps == 0),
        cache_(static_cast<const Cache*>(loads_keys_ ? p.key_cache : p.value_cache)),
        block_stride_(loads_keys_ ? p.key_block_stride : p.value_block_stride),
        head_stride_(loads_keys_ ? p.key_head_stride : p.value_head_stride),
        tile_tokens_(static_cast<uint32_t>(plan.tile_warps * kWarpTokens)),
        chunk_tokens_(plan.copy == PageCopy::kWhole ? static_cast<uint32_t>(p.block_size)
                                                    : kOctet) {}

  __device__ __forceinline__ void run(ShareWalk walk) {
    const uint64_t policy = cache_policy(walk.left <= plan_.brief_share);
    RingPlace at;
    Turn turn(group_);
    bool has_claimed = group_ != 0 || !loads_keys_ || lane_ != 0;
    for (; walk.left > 0; walk.next_piece(p_, plan_)) {
      const UnitHeads heads = unit_heads(plan_, walk.unit);
      const Cache* from = cache_ + heads.kv_head * head_stride_;
      const int32_t end = walk.tile + walk.piece_tiles();
      int32_t next = block_of(walk, walk.tile + turn.left());
      for (int32_t tile = walk.tile; tile < end; ++tile, at.advance(plan_)) {
        if (!turn.is_mine(plan_)) continue;
        // Block ids are on their way from one tile before they are needed.
        const int32_t block = next;
        next = block_of(walk, tile + plan_.groups);
        // When the ring is full for the first time there is time for something else.
        if (at.round > 0 && !has_claimed) {
          claim_arrivals(plan_);
          has_claimed = true;
        }
        barriers_.wait_until_free(at);
        fill(at.slot, chunk_of(walk, heads.first, tile, block), from, policy);
      }
    }
    if (!has_claimed) claim_arrivals(plan_);
  }

 private:
  // Tokens of one page that a lane looks after: chunk `lane` of the tile.
  struct Chunk {
    int32_t block;
    uint32_t row;     // of its first token within the page
    uint32_t tokens;  // to be attended to, from the first one on
  };

  // Of the lane's chunk; below 2^31 + 128.
  __device__ __forceinline__ uint32_t first_token(int32_t tile) const {
    return static_cast<uint32_t>(tile) * tile_tokens_ +
           static_cast<uint32_t>(lane_) * chunk_tokens_;
  }
  __device__ __forceinline__ bool has_chunk(const ShareWalk& walk, uint32_t start) const {
    return static_cast<uint32_t>(lane_) * chunk_tokens_ < tile_tokens_ &&
           start < static_cast<uint32_t>(walk.seq_len);
  }

  // The block table's entry for the lane's chunk, whatever it is.
  __device__ __forceinline__ int32_t block_of(const ShareWalk& walk, int32_t tile) const {
    const uint32_t start = first_token(tile);
    if (!has_chunk(walk, start)) return 0;
    const uint32_t page = plan_.page_tokens.narrow_quotient(start);
    return __ldg(p_.block_tables + walk.seq * p_.table_seq_stride + page);
  }

  __device__ __forceinline__ Chunk chunk_of(const ShareWalk& walk, int head, int32_t tile,
                                            int32_t block) const {
    const uint32_t start = first_token(tile);
    if (!has_chunk(walk, start)) return {};
    const auto seq_len = static_cast<uint32_t>(walk.seq_len);
    const uint32_t page = plan_.page_tokens.narrow_quotient(start);
    const uint32_t page_start = page * static_cast<uint32_t>(p_.block_size);
    if (block < 0 || block >= p_.num_blocks) {
      if (start == page_start && loads_keys_)
        report(p_, plan_, walk.seq, walk.seq_len, walk.unit, head, page, block);
      return {};
    }
    if (p_.sparse.active && !is_visible(p_, head, page_start, walk.seq_len)) return {};
    const uint32_t left = seq_len - start;
    return {block, start - page_start, left < chunk_tokens_ ? left : chunk_tokens_};
  }

  static __device__ __noinline__ bool is_visible(const PagedAttentionParams& p, int head,
                                                 uint32_t page_start, int32_t seq_len) {
    return sparse_sees(p.sparse, sparse_shift(p, head), page_start, seq_len);
  }

  // Once per entry, not for each of the units that read it. A length that is out of range is on
  // record itself; the entries that it leads to are not to blame.
  static __device__ __noinline__ void report(const PagedAttentionParams& p,
                                             const AttentionPlan& plan, int64_t seq,
                                             int32_t seq_len, int32_t unit, int head, uint32_t page,
                                             int32_t block) {
    if (p.sparse.active ? !is_visible(p, head, page * static_cast<uint32_t>(p.block_size), seq_len)
                        : unit != 0) {
      return;
    }
    if (p.seq_lens[seq] != seq_len) return;
    report_skipped(plan.skipped_blocks, seq * p.max_blocks + page, block);
  }

  __device__ __forceinline__ void fill(int slot, const Chunk& chunk, const Cache* from,
                                       uint64_t policy) const {
    const StageLayout& stage = plan_.shared.stage;
    char* to =
        shared_ + plan_.shared.stages + slot * stage.bytes + (loads_keys_ ? 0 : stage.values);
    if (plan_.copy == PageCopy::kWhole) {
      // A chunk of values is as large as one of keys.
      const int bytes = stage.key_chunk;
      // Copies may finish before they are announced: the stage is not full without that.
      if (chunk.tokens > 0) {
        copy_bulk(to + lane_ * bytes,
                  reinterpret_cast<const char*>(from + chunk.block * block_stride_), bytes,
                  barriers_.full(slot), policy);
      }
      if (loads_keys_) note_masks(slot, chunk);
      const int live = __popc(__ballot_sync(~0u, chunk.tokens > 0));
      if (lane_ == 0) barriers_.announce(slot, live * bytes);
      return;
    }
    if (loads_keys_) {
      note_masks(slot, chunk);
      copy_keys(to, chunk, from);
    } else {
      copy_values(to, chunk, from);
    }
    __syncwarp();
    if (lane_ == 0) barriers_.announce(slot, 0);
    barriers_.pieces_issued(slot);
  }

  // Written by the lane that announces the stage: what it did before is seen with that.
  __device__ __forceinline__ void note_masks(int slot, const Chunk& chunk) const {
    auto* const masks = reinterpret_cast<uint64_t*>(stage_info(plan_, shared_, slot));
    if (chunk_tokens_ > kMaskTokens) {
      // The only chunk of the tile.
      if (lane_ != 0) return;
      masks[0] = first_bits(chunk.tokens < kMaskTokens ? chunk.tokens : kMaskTokens);
      masks[1] = first_bits(chunk.tokens < kMaskTokens ? 0 : chunk.tokens - kMaskTokens);
      return;
    }
    const uint64_t mask = or_of_lanes(first_bits(chunk.tokens) << (lane_ * chunk_tokens_));
    if (lane_ == 0) masks[0] = mask;
  }

  // Up to 64.
  static __device__ __forceinline__ uint64_t first_bits(uint32_t count) {
    return count == 0 ? 0 : ~uint64_t{0} >> (kMaskTokens - count);
  }

  static __device__ __forceinline__ uint64_t or_of_lanes(uint64_t own) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const auto low = __reduce_or_sync(~0u, static_cast<uint32_t>(own));
    const auto high = __reduce_or_sync(~0u, static_cast<uint32_t>(own >> 32));
    return uint64_t{high} << 32 | low;
#else
#pragma unroll 1
    for (int step = 16; step > 0; step /= 2) own |= __shfl_xor_sync(~0u, own, step);
    return own;
#endif
  }

  // ---- pieces: chunks are octets here

  // The chunk of another lane; whole octets are copied, what is not attended to as well.
  struct Source {
    const Cache* from;
    bool exists;
  };
  __device__ __forceinline__ Source source(const Chunk& chunk, int octet, const Cache* from) const {
    const int64_t block = __shfl_sync(~0u, chunk.block, octet);
    const int64_t row = __shfl_sync(~0u, chunk.row, octet);
    const bool exists = __shfl_sync(~0u, chunk.tokens, octet) != 0;
    return {from + block * block_stride_ + row * (loads_keys_ ? p_.x : 1), exists};
  }

  // Consecutive lanes copy pieces of consecutive tokens.
  __device__ __forceinline__ void copy_keys(char* to, const Chunk& chunk, const Cache* from) const {
    const StageLayout& stage = plan_.shared.stage;
    const int bytes = plan_.key_piece_bytes;
#pragma unroll 1
    for (int first = 0; first < static_cast<int>(tile_tokens_); first += 32) {
      const int token = first + lane_;
      const Source source = this->source(chunk, token / kOctet % 32, from);
      if (!source.exists || token >= static_cast<int>(tile_tokens_)) continue;
      copy_run({source.from + token % kOctet * p_.x, p_.block_size * p_.x,
                to + token / kWarpTokens * stage.key_chunk + token % kWarpTokens * bytes,
                stage.key_pitch, 0, static_cast<int>(p_.head_size / p_.x), 1},
               bytes);
    }
  }

  // A lane copies pieces of the same tokens, of different dimensions.
  __device__ __forceinline__ void copy_values(char* to, const Chunk& chunk,
                                              const Cache* from) const {
    const StageLayout& stage = plan_.shared.stage;
    const int bytes = plan_.value_piece_bytes;
    const int piece_tokens = bytes / kElem;
    const int pieces = static_cast<int>(tile_tokens_) / piece_tokens;  // a power of 2, up to 16
    const int token = (lane_ & (pieces - 1)) * piece_tokens;
    const int first = lane_ / pieces;
    const int step = 32 / pieces;
    const Source source = this->source(chunk, token / kOctet, from);
    if (!source.exists) return;
    // Bytes of a dimension's tokens within the chunk.
    const int within = token % kWarpTokens * kElem;
    copy_run({source.from + token % kOctet + first * p_.block_size, p_.block_size * step,
              to + token / kWarpTokens * stage.value_chunk + within / 16 * stage.value_piece +
                  within % 16 + first * stage.value_pitch,
              step * stage.value_pitch, first, static_cast<int>(p_.head_size), step},
             bytes);
  }

  // Pieces first, first + step, ... below end. Pitches are those of a step.
  struct Run {
    const Cache* from;
    int64_t pitch;
    char* to;
    int to_pitch;  // in bytes
    int first;
    int end;
    int step;
  };

  __device__ __forceinline__ void copy_run(const Run& run, int bytes) const {
    if (kMayBeUnaligned && plan_.copy == PageCopy::kElements) {
      copy_elements(run, bytes);
    } else if (bytes == 16) {
      copy_pieces<16>(run);
    } else {
      copy_pieces<8>(run);
    }
  }

  template <int kBytes>
  static __device__ __forceinline__ void copy_pieces(const Run& run) {
    const char* from = reinterpret_cast<const char*>(run.from);
    const int64_t pitch = run.pitch * kElem;
    char* to = run.to;
#pragma unroll 8
    for (int i = run.first; i < run.end; i += run.step) {
      copy_async<kBytes>(to, from);
      from += pitch;
      to += run.to_pitch;
    }
  }

  static __device__ __noinline__ void copy_elements(Run run, int bytes) {
    for (int i = run.first; i < run.end; i += run.step) {
      for (int j = 0; j * kElem < bytes; ++j) reinterpret_cast<Cache*>(run.to)[j] = run.from[j];
      run.from += run.pitch;
      run.to += run.to_pitch;
    }
  }

  static constexpr int kElem = static_cast<int>(sizeof(Cache));

  const PagedAttentionParams& p_;
  const AttentionPlan& plan_;
  char* shared_;
  StageBarriers barriers_;
  int lane_;
  int group_;
  bool loads_keys_;  // else values
  const Cache* cache_;
  int64_t block_stride_;
  int64_t head_stride_;
  uint32_t tile_tokens_;
  uint32_t chunk_tokens_;
};

}  // namespace kvops::kernels
