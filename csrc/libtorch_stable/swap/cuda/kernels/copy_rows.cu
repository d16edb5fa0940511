// Copies of one size between addresses that the device reaches, all multiples of 16 bytes, by rows
// of 512 bytes of which a warp holds some at a time, of as many entries as that takes.
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
// Of thread blocks that do not stay: 4 KiB for each. What has less to do is done faster than a
// multiprocessor can start the next one.
constexpr uint32_t kThreadsWithinDevice = 64;

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
template <class Table>
__device__ __forceinline__ void copy_rows(const Table& table, uint32_t first_row, uint32_t lane) {
  const auto entry = table.by_rows_per_entry.quotient(first_row);
  const RowPosition start{entry, first_row - entry * table.rows_per_entry};
  const uint32_t rows = min(kRowsOverLink, table.num_rows - first_row);
  uint4 held[kRowsOverLink];
  RowPosition at = start;
#pragma unroll
  for (uint32_t i = 0; i < kRowsOverLink; ++i) {
    if (i < rows && at.unit(lane) < table.units_per_entry) {
      const uint64_t from = address(table.src, table.entries[at.entry].src, table, at.unit(lane));
      held[i] = __ldcg(reinterpret_cast<const uint4*>(from));
    }
    at.advance(table);
  }
  at = start;
#pragma unroll
  for (uint32_t i = 0; i < kRowsOverLink; ++i) {
    if (i < rows && at.unit(lane) < table.units_per_entry) {
      const uint64_t to = address(table.dst, table.entries[at.entry].dst, table, at.unit(lane));
      __stcg(reinterpret_cast<uint4*>(to), held[i]);
    }
    at.advance(table);
  }
}

// Over the link: thread blocks that stay, as few as the caller wants.
template <class Table>
__global__ void __launch_bounds__(kCopyThreads, 2)
    copy_rows_kernel(const __grid_constant__ Table table) {
  if (table.is_early) wait_for_previous();
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t step = gridDim.x * (blockDim.x / 32) * kRowsOverLink;
  // Neighbouring rows go to different multiprocessors, so that few rows use many of them.
  uint32_t row = ((threadIdx.x / 32) * gridDim.x + blockIdx.x) * kRowsOverLink;
  while (row < table.num_rows) {
    const bool is_last = table.num_rows - row <= step;
    if (is_last) let_next_start();
    copy_rows(table, row, lane);
    if (is_last) break;
    row += step;
  }
  finish_after_previous();
}

// Within a device: memory is faster with thread blocks that go through it in order, each gone when
// it has copied its piece, than with ones that stay. With all of them started, the last ones have
// enough to do until the next launch is there.
template <class Table>
__global__ void __launch_bounds__(kThreadsWithinDevice)
    copy_rows_within_kernel(const __grid_constant__ Table table) {
  constexpr uint32_t kWarps = kThreadsWithinDevice / 32;
  if (table.is_early) wait_for_previous();
  let_next_start();
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t first_row = blockIdx.x * kWarps * kRowsWithinDevice + threadIdx.x / 32;
  uint4 held[kRowsWithinDevice];
  uint64_t to[kRowsWithinDevice] = {};  // nothing is at address 0
#pragma unroll
  for (uint32_t i = 0; i < kRowsWithinDevice; ++i) {
    const uint32_t row = first_row + i * kWarps;
    const uint32_t entry = table.by_rows_per_entry.quotient(row);
    const uint32_t unit = RowPosition{entry, row - entry * table.rows_per_entry}.unit(lane);
    if (row >= table.num_rows || unit >= table.units_per_entry) continue;
    const uint64_t from = address(table.src, table.entries[entry].src, table, unit);
    held[i] = __ldcg(reinterpret_cast<const uint4*>(from));
    to[i] = address(table.dst, table.entries[entry].dst, table, unit);
  }
#pragma unroll
  for (uint32_t i = 0; i < kRowsWithinDevice; ++i) {
    if (to[i] != 0) __stcg(reinterpret_cast<uint4*>(to[i]), held[i]);
  }
  finish_after_previous();
}

uint32_t ceil_div(uint32_t number, uint32_t by) { return (number - 1) / by + 1; }

}  // namespace

template <class Table>
cudaError_t launch_rows(Table& table, const CopyLaunch& launch) {
  table.is_early = launch.start == LaunchStart::kReady;
  if (!launch.over_link) {
    constexpr uint32_t kRowsOfCta = kThreadsWithinDevice / 32 * kRowsWithinDevice;
    return launch_table(copy_rows_within_kernel<Table>, table,
                        {ceil_div(table.num_rows, kRowsOfCta), kThreadsWithinDevice}, launch);
  }
  const uint32_t ctas =
      std::min(static_cast<uint32_t>(launch.max_ctas), ceil_div(table.num_rows, kRowsOverLink));
  return launch_table(copy_rows_kernel<Table>, table, {ctas, kCopyThreads}, launch);
}

template cudaError_t launch_rows(FewNearTable&, const CopyLaunch&);
template cudaError_t launch_rows(SmallRowTable&, const CopyLaunch&);
template cudaError_t launch_rows(LargeRowTable&, const CopyLaunch&);
template cudaError_t launch_rows(SmallNearTable&, const CopyLaunch&);
template cudaError_t launch_rows(LargeNearTable&, const CopyLaunch&);

}  // namespace kvops::kernels
