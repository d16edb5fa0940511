// The copies of one launch, passed to the kernels by value: they are part of the launch, or of the
// node of a captured graph, so nothing has to outlive the call.
// Filled by copy_blocks.cuh; every entry has 1 to kMaxEntryBytes bytes.
#pragma once

#include <cstdint>

namespace kvops::kernels {

// What a warp copies at a time: 8 loads of 16 bytes in flight in each lane.
inline constexpr uint32_t kPieceBytes = 4096;
// So that pieces of a full table are counted with 32 bits.
inline constexpr uint32_t kMaxEntryBytes = 1u << 30;

struct CopyEntry {
  uint64_t src;
  uint64_t dst;
  uint32_t bytes;
  uint32_t first_piece;  // pieces of all entries before this one
};

template <int kCapacity>
struct CopyTable {
  uint32_t num_entries;
  uint32_t num_pieces;
  CopyEntry entries[kCapacity];
};

// Kernel parameters hold 4 KiB everywhere, and 32,764 bytes with drivers from CUDA 12.1 on.
inline constexpr int kSmallTable = 170;
inline constexpr int kLargeTable = 1364;
static_assert(sizeof(CopyTable<kSmallTable>) <= 4096);
static_assert(sizeof(CopyTable<kLargeTable>) <= 32764);

}  // namespace kvops::kernels
