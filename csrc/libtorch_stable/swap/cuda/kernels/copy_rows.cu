// Copies of one size between addresses that the device reaches, all multiples of 16 bytes: every
// warp takes some rows of 512 bytes at a time, of as many entries as it takes.
// Launched through copy_launch.h. Small blocks keep as many bytes in flight as large ones.
#include <cuda_runtime.h>

#include <algorithm>

#include "swap/cuda/kernels/copy_overlap.cuh"
#include "swap/cuda/kernels/table_launch.h"

namespace kvops::kernels {
namespace {

// Over the link, few warps keep much under way; within a device, all of them have enough with less.
constexpr uint32_t kRowsOverLink = 8;
constexpr uint32_t kRowsWithinDevice = 4;

// A row of an entry, and the one after it.
struct RowPosition {
  uint32_t entry;
  uint32_t row_in_entry;

  template <class Table>
  __device__ __forceinline__ void advance(const Table& table) {
    if (++row_in_entry == table.rows_per_entry) {
      row_in_entry = 0;
      ++entry;
    }
  }
  __device__ __forceinline__ uint32_t unit(uint32_t lane) const {
    return row_in_entry * kRowUnits + lane;
  }
};

template <class Table>
__device__ __forceinline__ uint64_t address(uint64_t base, uint32_t steps, const Table& table,
                                            uint32_t unit) {
  return base + (static_cast<uint64_t>(steps) << table.step_bits) +
         static_cast<uint64_t>(unit) * kUnitBytes;
}

// All loads are under way before the first store. Past the first-level cache only: telling the
// second one that nothing is used twice made copies within a device 3 % slower (H200).
template <uint32_t kRowsAtOnce, class Table>
__device__ __forceinline__ void copy_rows(const Table& table, uint32_t first_row, uint32_t lane) {
  const auto entry = static_cast<uint32_t>(table.by_rows_per_entry.quotient(first_row));
  const RowPosition start{entry, first_row - entry * table.rows_per_entry};
  const uint32_t rows = min(kRowsAtOnce, table.num_rows - first_row);
  uint4 held[kRowsAtOnce];
  RowPosition at = start;
#pragma unroll
  for (uint32_t i = 0; i < kRowsAtOnce; ++i) {
    if (i < rows && at.unit(lane) < table.units_per_entry) {
      const uint64_t from = address(table.src, table.entries[at.entry].src, table, at.unit(lane));
      held[i] = __ldcg(reinterpret_cast<const uint4*>(from));
    }
    at.advance(table);
  }
  at = start;
#pragma unroll
  for (uint32_t i = 0; i < kRowsAtOnce; ++i) {
    if (i < rows && at.unit(lane) < table.units_per_entry) {
      const uint64_t to = address(table.dst, table.entries[at.entry].dst, table, at.unit(lane));
      __stcg(reinterpret_cast<uint4*>(to), held[i]);
    }
    at.advance(table);
  }
}

template <uint32_t kRowsAtOnce, class Table>
__global__ void __launch_bounds__(kCopyThreads, 2)
    copy_rows_kernel(const __grid_constant__ Table table) {
  if (table.is_early) wait_for_previous();
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t step = gridDim.x * (blockDim.x / 32) * kRowsAtOnce;
  // Neighbouring rows go to different multiprocessors, so that few rows use many of them.
  uint32_t row = ((threadIdx.x / 32) * gridDim.x + blockIdx.x) * kRowsAtOnce;
  while (row < table.num_rows) {
    const bool is_last = table.num_rows - row <= step;
    if (is_last) let_next_start();
    copy_rows<kRowsAtOnce>(table, row, lane);
    if (is_last) break;
    row += step;
  }
  finish_after_previous();
}

template <uint32_t kRowsAtOnce, class Table>
cudaError_t launch_rows_at_once(const Table& table, const CopyLaunch& launch) {
  const uint32_t ctas =
      std::min(static_cast<uint32_t>(launch.max_ctas), (table.num_rows - 1) / kRowsAtOnce + 1);
  return launch_table(copy_rows_kernel<kRowsAtOnce, Table>, table, {ctas, launch.threads}, launch);
}

}  // namespace

template <class Table>
cudaError_t launch_rows(Table& table, const CopyLaunch& launch) {
  table.is_early = launch.start == LaunchStart::kReady;
  return launch.over_link ? launch_rows_at_once<kRowsOverLink>(table, launch)
                          : launch_rows_at_once<kRowsWithinDevice>(table, launch);
}

template cudaError_t launch_rows(SmallRowTable&, const CopyLaunch&);
template cudaError_t launch_rows(LargeRowTable&, const CopyLaunch&);
template cudaError_t launch_rows(SmallNearTable&, const CopyLaunch&);
template cudaError_t launch_rows(LargeNearTable&, const CopyLaunch&);

}  // namespace kvops::kernels
