// Finds blocks that are written and touched again. See block_order.h.
// One pass over the rows and a hash set of targets: far below the cost of the copies.
#include "swap/cuda/block_order.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace kvops::cuda {
namespace {

class BlockSet {
 public:
  explicit BlockSet(int64_t most)
      : slots_(std::bit_ceil(static_cast<uint64_t>(most) * 2 + 1), kEmpty),
        mask_(slots_.size() - 1) {}

  // False if it was there already.
  bool insert(int64_t block) {
    int64_t& slot = slots_[find(block)];
    if (slot == block) return false;
    slot = block;
    return true;
  }

  bool contains(int64_t block) const { return slots_[find(block)] == block; }

 private:
  static constexpr int64_t kEmpty = -1;

  size_t find(int64_t block) const {
    // Fibonacci hashing: runs of ids must not become runs of collisions.
    uint64_t at = (static_cast<uint64_t>(block) * 0x9E3779B97F4A7C15ull) >> 20;
    while (slots_[at & mask_] != kEmpty && slots_[at & mask_] != block) ++at;
    return at & mask_;
  }

  std::vector<int64_t> slots_;
  uint64_t mask_;
};

struct Row {
  int64_t src_block;
  int64_t dst_block;
};

Row row_of(const SwapBlocksParams& p, int64_t i) {
  const int64_t* pair = p.mapping + i * p.mapping_row_stride_elems;
  return {pair[0], pair[p.mapping_column_stride_elems]};
}

// Source blocks and target blocks that the rows reach: [first, last].
struct Reach {
  Row first{INT64_MAX, INT64_MAX};
  Row last{INT64_MIN, INT64_MIN};
};

Reach reach_of(const SwapBlocksParams& p) {
  Reach reach;
  for (int64_t i = 0; i < p.num_copies; ++i) {
    const Row row = row_of(p, i);
    reach.first.src_block = std::min(reach.first.src_block, row.src_block);
    reach.first.dst_block = std::min(reach.first.dst_block, row.dst_block);
    reach.last.src_block = std::max(reach.last.src_block, row.src_block);
    reach.last.dst_block = std::max(reach.last.dst_block, row.dst_block);
  }
  return reach;
}

bool sources_meet_targets(const SwapBlocksParams& p) {
  const Reach reach = reach_of(p);
  const auto src = reinterpret_cast<uintptr_t>(p.src);
  const auto dst = reinterpret_cast<uintptr_t>(p.dst);
  const auto at = [&p](uintptr_t base, int64_t block) {
    return base + static_cast<uintptr_t>(block) * static_cast<uintptr_t>(p.block_bytes);
  };
  return at(src, reach.first.src_block) < at(dst, reach.last.dst_block + 1) &&
         at(dst, reach.first.dst_block) < at(src, reach.last.src_block + 1);
}

}  // namespace

bool block_order_is_free(const SwapBlocksParams& p) {
  if (p.num_copies == 0) return true;
  const bool shared = sources_meet_targets(p);
  const int64_t shift_bytes =
      static_cast<int64_t>(reinterpret_cast<uintptr_t>(p.src) - reinterpret_cast<uintptr_t>(p.dst));
  // Pools that are shifted against each other by part of a block: any two blocks may overlap.
  if (shared && shift_bytes % p.block_bytes != 0) return false;
  const int64_t shift_blocks = shift_bytes / p.block_bytes;
  const auto copies_nothing = [&](Row row) {
    return shared && row.src_block + shift_blocks == row.dst_block;
  };
  BlockSet targets(p.num_copies);
  for (int64_t i = 0; i < p.num_copies; ++i) {
    const Row row = row_of(p, i);
    if (!copies_nothing(row) && !targets.insert(row.dst_block)) return false;
  }
  if (!shared) return true;
  for (int64_t i = 0; i < p.num_copies; ++i) {
    const Row row = row_of(p, i);
    // A target before dst's first block is no target: dst has no block -1.
    const int64_t as_target = row.src_block + shift_blocks;
    if (!copies_nothing(row) && as_target >= 0 && targets.contains(as_target)) return false;
  }
  return true;
}

}  // namespace kvops::cuda
