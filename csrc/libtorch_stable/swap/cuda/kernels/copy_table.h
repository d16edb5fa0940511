// The copies of one launch, passed to the kernels by value: they are part of the launch, or of the
// node of a captured graph, so nothing has to outlive the call.
// Tables stay within the 4 KiB of parameters that every driver and every GPU takes. One kernel with
// larger ones in the library would be at the mercy of drivers before CUDA 12.1 that load everything
// at once, and long plans lose nothing: launches follow each other without a gap.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/cuda/divisor.cuh"

namespace kvops::kernels {

inline constexpr size_t kParameterBytes = 4096;
// So that pieces and rows of a full table are counted with 32 bits.
inline constexpr uint32_t kMaxEntryBytes = 1u << 30;

// ---- copies of any size and alignment

// What a warp copies at a time: 8 loads of 16 bytes in flight in each lane.
inline constexpr uint32_t kPieceBytes = 4096;

struct BlockEntry {
  uint64_t src;
  uint64_t dst;
  uint32_t bytes;        // 1 to kMaxEntryBytes
  uint32_t first_piece;  // pieces of all entries before this one
};

struct BlockTable {
  static constexpr uint32_t kCapacity = 170;
  uint32_t num_entries;
  uint32_t num_pieces;
  BlockEntry entries[kCapacity];
};
static_assert(sizeof(BlockTable) <= kParameterBytes);

// ---- copies of one size, everything a multiple of 16 bytes

// What a warp copies with one load in each lane.
inline constexpr uint32_t kRowUnits = 32;
inline constexpr uint32_t kUnitBytes = 16;

struct RowEntry {
  uint32_t src;  // distance from the table's src, in steps
  uint32_t dst;
};

struct RowTable {
  static constexpr uint32_t kCapacity = 500;
  uint64_t src;  // the lowest of all entries
  uint64_t dst;
  Divisor by_rows_per_entry;
  uint32_t num_rows;  // of all entries
  uint32_t rows_per_entry;
  uint32_t units_per_entry;
  uint32_t step_bits;  // a step is 1 << step_bits bytes
  RowEntry entries[kCapacity];
};
static_assert(sizeof(RowTable) <= kParameterBytes);

}  // namespace kvops::kernels
