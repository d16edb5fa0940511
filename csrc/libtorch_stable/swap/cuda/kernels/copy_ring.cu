// Copies over the link by thread blocks of one thread, in whole units: bulk copies into a ring of
// shared memory and out of it (compute capability 9.0 on). Launched through copy_launch.h.
// A multiprocessor has only so many bulk copies over the link under way (13 GB/s from the host, 30
// to it), so there are some thread blocks, and each takes next to nothing, to find room beside
// other kernels: no registers to speak of, since nothing depends on threadIdx and uniform registers
// do the work, and 11 KiB. A piece leaves the ring when its bytes have arrived, not when they are
// on their way: writes that the link cannot take yet stand in the way of everybody's reads of
// memory, and a decode step beside them took twice as long.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "common/cuda/bulk_copy.cuh"
#include "swap/cuda/kernels/copy_overlap.cuh"
#include "swap/cuda/kernels/table_fill.h"
#include "swap/cuda/kernels/table_launch.h"

namespace kvops::kernels {
namespace {

constexpr int kSlots = 10;

struct Ring {
  alignas(16) char slots[kSlots][kRingPieceBytes];
  uint64_t filled[kSlots];  // mbarriers
};

#if __CUDA_ARCH__ >= 900

// Goes through the pieces of one thread block: every gridDim.x-th of the table.
template <class Table>
class Pieces;

template <uint32_t kCapacity, class Steps>
class Pieces<RowTable<kCapacity, Steps>> {
 public:
  using Table = RowTable<kCapacity, Steps>;
  __device__ __forceinline__ explicit Pieces(const Table& table)
      : entry_(static_cast<uint32_t>((static_cast<uint64_t>(blockIdx.x) * table.ring.by_pieces) >>
                                     kRingShift)),
        piece_(blockIdx.x - entry_ * table.ring.pieces) {}

  __device__ __forceinline__ bool is_near_end(const Table& table) const {
    return entry_ >= table.ring.last_entries;
  }

  __device__ __forceinline__ bool done(const Table& table) const {
    return entry_ >= table.num_entries;
  }
  __device__ __forceinline__ uint32_t bytes(const Table& table) const {
    return min(kRingPieceBytes, table.units_per_entry * kUnitBytes - piece_ * kRingPieceBytes);
  }
  __device__ __forceinline__ uint64_t src(const Table& table) const {
    return at(table.src, table.entries[entry_].src, table);
  }
  __device__ __forceinline__ uint64_t dst(const Table& table) const {
    return at(table.dst, table.entries[entry_].dst, table);
  }
  __device__ __forceinline__ void advance(const Table& table) {
    entry_ += table.ring.step_entries;
    piece_ += table.ring.step_pieces;
    if (piece_ >= table.ring.pieces) {
      piece_ -= table.ring.pieces;
      ++entry_;
    }
  }

 private:
  __device__ __forceinline__ uint64_t at(uint64_t base, uint32_t steps, const Table& table) const {
    return base + (static_cast<uint64_t>(steps) << table.step_bits) +
           static_cast<uint64_t>(piece_) * kRingPieceBytes;
  }

  uint32_t entry_;
  uint32_t piece_;  // of the entry
};

template <>
class Pieces<BlockTable> {
 public:
  __device__ __forceinline__ explicit Pieces(const BlockTable& table)
      : entry_(0), piece_(blockIdx.x) {
    find(table);
  }

  __device__ __forceinline__ bool is_near_end(const BlockTable& table) const {
    return piece_ + ring_pieces_ahead(gridDim.x) >= table.num_pieces;
  }
  __device__ __forceinline__ bool done(const BlockTable& table) const {
    return piece_ >= table.num_pieces;
  }
  __device__ __forceinline__ uint32_t bytes(const BlockTable& table) const {
    return min(kRingPieceBytes, table.entries[entry_].bytes - offset(table));
  }
  __device__ __forceinline__ uint64_t src(const BlockTable& table) const {
    return table.entries[entry_].src + offset(table);
  }
  __device__ __forceinline__ uint64_t dst(const BlockTable& table) const {
    return table.entries[entry_].dst + offset(table);
  }
  __device__ __forceinline__ void advance(const BlockTable& table) {
    piece_ += gridDim.x;
    find(table);
  }

 private:
  __device__ __forceinline__ uint32_t offset(const BlockTable& table) const {
    return (piece_ - table.entries[entry_].first_piece) * kRingPieceBytes;
  }
  __device__ __forceinline__ void find(const BlockTable& table) {
#pragma unroll 1
    while (entry_ + 1 < table.num_entries && table.entries[entry_ + 1].first_piece <= piece_) {
      ++entry_;
    }
  }

  uint32_t entry_;
  uint32_t piece_;  // of the table
};

// Pieces whose bytes are still on their way to the target; all others of the ring are being read.
constexpr int kArriving = 2;

template <class Table>
__device__ __forceinline__ void copy_through(Ring& ring, const Table& table) {
#pragma unroll
  for (int i = 0; i < kSlots; ++i) init_bulk_barrier(&ring.filled[i]);
  fence_shared_bulk();
  Pieces<Table> reading(table);
  Pieces<Table> writing(table);
  const auto read_next = [&](int i) {
    if (reading.is_near_end(table)) let_next_start();
    if (reading.done(table)) return;
    const auto* src = reinterpret_cast<const char*>(reading.src(table));
    const uint32_t bytes = reading.bytes(table);
    expect_bytes(&ring.filled[i], bytes);
    copy_bulk(ring.slots[i], src, bytes, &ring.filled[i]);
    reading.advance(table);
  };
#pragma unroll
  for (int i = 0; i < kSlots - kArriving; ++i) read_next(i);
#pragma unroll 1
  for (uint32_t phase = 0;; phase ^= 1) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      if (writing.done(table)) return wait_for_stores<0>();
      wait_for_bytes(&ring.filled[i], phase);
      auto* dst = reinterpret_cast<char*>(writing.dst(table));
      store_bulk(dst, ring.slots[i], writing.bytes(table));
      writing.advance(table);
      wait_for_stores<kArriving>();
      read_next((i + kSlots - kArriving) % kSlots);
    }
  }
}

#endif

template <class Table>
__global__ void __launch_bounds__(1) copy_ring_kernel(const __grid_constant__ Table table) {
#if __CUDA_ARCH__ >= 900
  __shared__ Ring ring;
  if (table.is_early) wait_for_previous();
  copy_through(ring, table);
  if (blockIdx.x == 0) wait_for_previous();
#endif
}

template <uint32_t kCapacity, class Steps>
uint32_t pieces_of(const RowTable<kCapacity, Steps>& table) {
  return table.ring.pieces * table.num_entries;
}
uint32_t pieces_of(const BlockTable& table) { return table.num_pieces; }

}  // namespace

template <class Table>
cudaError_t launch_ring(Table& table, const CopyLaunch& launch) {
  const uint32_t ctas = std::min(static_cast<uint32_t>(launch.ring_ctas), pieces_of(table));
  table.is_early = launch.start == LaunchStart::kReady;
  set_steps(table, ctas);
  return launch_table(copy_ring_kernel<Table>, table, {ctas, 1}, launch);
}

template cudaError_t launch_ring(FewNearTable&, const CopyLaunch&);
template cudaError_t launch_ring(SmallRowTable&, const CopyLaunch&);
template cudaError_t launch_ring(LargeRowTable&, const CopyLaunch&);
template cudaError_t launch_ring(SmallNearTable&, const CopyLaunch&);
template cudaError_t launch_ring(LargeNearTable&, const CopyLaunch&);
template cudaError_t launch_ring(BlockTable&, const CopyLaunch&);

}  // namespace kvops::kernels
