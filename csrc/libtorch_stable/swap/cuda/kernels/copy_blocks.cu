// Copies between any addresses that the device reaches: every warp takes the next piece of 4 KiB.
// Launched through copy_launch.h, for what copy_rows.cu does not take.
// 16 bytes a lane where source and target agree in alignment, else what their distance allows.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "swap/cuda/kernels/copy_overlap.cuh"
#include "swap/cuda/kernels/copy_units.cuh"
#include "swap/cuda/kernels/table_launch.h"

namespace kvops::kernels {
namespace {

// What a lane still has to copy: every 32nd unit.
template <class Unit>
struct LaneCopy {
  const Unit* from;
  Unit* to;
  int units_left;  // of the whole warp, from this lane's next one on

  // kUnits at a time: all loads are under way before the first store. Streaming: nothing is used
  // twice.
  template <int kUnits>
  __device__ __forceinline__ bool step() {
    if (units_left <= 32 * (kUnits - 1)) return false;
    Unit held[kUnits];
#pragma unroll
    for (int i = 0; i < kUnits; ++i) held[i] = __ldcs(from + 32 * i);
#pragma unroll
    for (int i = 0; i < kUnits; ++i) __stcs(to + 32 * i, held[i]);
    from += 32 * kUnits;
    to += 32 * kUnits;
    units_left -= 32 * kUnits;
    return true;
  }
};

template <class Unit>
__device__ __forceinline__ void copy_units(uint64_t dst, uint64_t src, uint32_t units, int lane) {
  LaneCopy<Unit> copy{reinterpret_cast<const Unit*>(src) + lane,
                      reinterpret_cast<Unit*>(dst) + lane, static_cast<int>(units) - lane};
#pragma unroll 1
  while (copy.template step<8>()) {
  }
  copy.template step<4>();
  copy.template step<2>();
  copy.template step<1>();
}

// Less than one unit, a byte in each lane.
__device__ __forceinline__ void copy_end(uint64_t dst, uint64_t src, uint32_t bytes, int lane) {
  if (lane < static_cast<int>(bytes)) {
    reinterpret_cast<uint8_t*>(dst)[lane] = reinterpret_cast<const uint8_t*>(src)[lane];
  }
}

template <class Unit>
__device__ __forceinline__ void copy_piece_as(uint64_t dst, uint64_t src, uint32_t bytes,
                                              int lane) {
  const Parts parts = parts_of<Unit>(dst, bytes);
  copy_end(dst, src, parts.head_bytes, lane);
  const auto units = static_cast<uint32_t>(parts.units);
  copy_units<Unit>(dst + parts.head_bytes, src + parts.head_bytes, units, lane);
  const uint32_t done = parts.head_bytes + units * static_cast<uint32_t>(sizeof(Unit));
  copy_end(dst + done, src + done, bytes - done, lane);
}

__device__ __forceinline__ void copy_piece(uint64_t dst, uint64_t src, uint32_t bytes, int lane) {
  switch (common_unit_bytes(dst, src)) {
    case 16:
      return copy_piece_as<uint4>(dst, src, bytes, lane);
    case 8:
      return copy_piece_as<uint2>(dst, src, bytes, lane);
    case 4:
      return copy_piece_as<uint32_t>(dst, src, bytes, lane);
    case 2:
      return copy_piece_as<uint16_t>(dst, src, bytes, lane);
    default:
      return copy_piece_as<uint8_t>(dst, src, bytes, lane);
  }
}

// The entry that a piece belongs to: the last one that begins at it or before it.
__device__ __forceinline__ uint32_t entry_of(const BlockTable& table, uint32_t piece) {
  uint32_t low = 0;
  uint32_t high = table.num_entries - 1;
  while (low < high) {
    const uint32_t middle = (low + high + 1) / 2;
    if (table.entries[middle].first_piece <= piece) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

__global__ void __launch_bounds__(kCopyThreads, 2)
    copy_blocks_kernel(const __grid_constant__ BlockTable table) {
  if (table.is_early) wait_for_previous();
  const int lane = threadIdx.x % 32;
  const uint32_t warps = gridDim.x * (blockDim.x / 32);
  // Neighbouring pieces go to different multiprocessors, so that few pieces use many of them.
  uint32_t piece = (threadIdx.x / 32) * gridDim.x + blockIdx.x;
  while (piece < table.num_pieces) {
    const bool is_last = table.num_pieces - piece <= warps;
    if (is_last) let_next_start();
    const BlockEntry& entry = table.entries[entry_of(table, piece)];
    const uint32_t offset = (piece - entry.first_piece) * kPieceBytes;
    copy_piece(entry.dst + offset, entry.src + offset, min(kPieceBytes, entry.bytes - offset),
               lane);
    if (is_last) break;
    piece += warps;
  }
  finish_after_previous();
}

}  // namespace

cudaError_t launch_blocks(BlockTable& table, const CopyLaunch& launch) {
  table.is_early = launch.start == LaunchStart::kReady;
  const unsigned ctas = std::min(static_cast<unsigned>(launch.max_ctas), table.num_pieces);
  return launch_table(copy_blocks_kernel, table, {ctas, kCopyThreads}, launch);
}

}  // namespace kvops::kernels
