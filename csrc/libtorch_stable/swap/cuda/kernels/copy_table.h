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

// ---- for copy_ring.cu

// What goes into a ring of shared memory as one.
inline constexpr uint32_t kRingPieceBytes = 1024;
// So many pieces of all thread blocks before the last one, 3 us or more, they let the next launch
// start, which takes 2 us to be there; and so many of each of them, of which it has ten in its
// ring.
inline constexpr uint32_t kRingPiecesAhead = 192;
inline constexpr uint32_t kRingPiecesAheadOfEach = 12;
constexpr uint32_t ring_pieces_ahead(uint32_t ctas) {
  const uint32_t of_each = kRingPiecesAheadOfEach * ctas;
  return of_each < kRingPiecesAhead ? kRingPiecesAhead : of_each;
}
inline constexpr uint32_t kRingShift = 31;

// How a thread block finds its pieces; filled when the number of thread blocks is known.
struct RingSteps {
  uint32_t pieces;        // of an entry, in a RowTable; the following likewise
  uint32_t by_pieces;     // a number below 2^10, times this, over 2^31, is that number over pieces
  uint32_t step_entries;  // from piece to piece of a thread block: entries and pieces
  uint32_t step_pieces;
  uint32_t last_entries;  // from this entry on it is worth having the next launch start
};

// ---- copies of any size and alignment

// What a warp copies at a time: 8 loads of 16 bytes in flight in each lane.
inline constexpr uint32_t kPieceBytes = 4096;

struct BlockEntry {
  uint64_t src;
  uint64_t dst;
  uint32_t bytes;        // 1 to kMaxEntryBytes
  uint32_t first_piece;  // pieces of all entries before this one, of the size the table is for
};

struct BlockTable {
  static constexpr uint32_t kCapacity = 170;
  uint32_t is_early;  // must wait for what the stream had before
  uint32_t num_entries;
  uint32_t num_pieces;
  BlockEntry entries[kCapacity];
};
static_assert(sizeof(BlockTable) <= kParameterBytes);

// ---- copies of one size, everything a multiple of 16 bytes

// What a warp copies with one load in each lane.
inline constexpr uint32_t kRowUnits = 32;
inline constexpr uint32_t kUnitBytes = 16;

// Distances from the table's src and dst, in steps: of 32 bits, or of 16 where that is enough.
template <class Steps>
struct RowEntry {
  Steps src;
  Steps dst;
};

template <uint32_t kEntries, class Distance>
struct RowTable {
  static constexpr uint32_t kCapacity = kEntries;
  using Steps = Distance;
  uint64_t src;  // the lowest of all entries
  uint64_t dst;
  NarrowDivisor by_rows_per_entry;  // a full table has fewer than 2^31 rows
  uint32_t num_rows;                // of all entries
  uint32_t rows_per_entry;
  uint32_t units_per_entry;
  uint32_t step_bits;  // a step is 1 << step_bits bytes
  uint32_t num_entries;
  uint32_t is_early;  // must wait for what the stream had before
  RingSteps ring;
  RowEntry<Steps> entries[kCapacity];
};
using LargeRowTable = RowTable<499, uint32_t>;
using LargeNearTable = RowTable<998, uint16_t>;
// Parameters take time: 4 KiB a microsecond more than 1 KiB, of the host and of the GPU each, and
// that 0.2 more than half of it.
using FewNearTable = RowTable<115, uint16_t>;
using SmallRowTable = RowTable<115, uint32_t>;
using SmallNearTable = RowTable<230, uint16_t>;
static_assert(sizeof(LargeRowTable) <= kParameterBytes && sizeof(SmallRowTable) <= 1024);
static_assert(sizeof(LargeNearTable) <= kParameterBytes && sizeof(SmallNearTable) <= 1024);

}  // namespace kvops::kernels
