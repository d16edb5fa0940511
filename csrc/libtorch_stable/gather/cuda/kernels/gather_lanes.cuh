// The gather kernel of many rows of few requests. Like a plain copy, a small block takes some units
// one after the other, wherever rows end, and a thread a few of them, all loads before the first
// store. Each warp finds the entries of the block's rows by itself, a lane each: no warp waits for
// another. At the start, and whenever blocks begin together, it is instructions that take time, so
// all numbers have 32 bits, and a block whose rows all have entries does not ask for each.
// Launched by launch_gather with its Mover (gather.cuh).
#pragma once

#include <cstdint>

#include "common/cuda/launch.cuh"
#include "gather/cuda/kernels/lane_requests.cuh"

namespace kvops::kernels {

inline constexpr int kLanesThreads = 64;
inline constexpr int kLanesUnits = 4;  // of a thread
// Blocks that a multiprocessor has room for, at least; before sm_89, fp8 takes more registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
inline constexpr int kLanesBlocks = 12;
#else
inline constexpr int kLanesBlocks = 24;
#endif
inline constexpr uint32_t kBlockUnits = kLanesThreads * kLanesUnits;
inline constexpr int64_t kMostLaneColumns = 1 << 15;

struct LanesShape {
  NarrowDivisor columns;
  uint32_t num_columns;
  uint32_t reciprocal;  // of num_columns, for units of a block's own rows
  uint32_t num_units;
  uint32_t row_stride_bytes;
  uint32_t block_stride;  // of entries, as the next in the mover's kAlignment
  uint32_t entry_stride;
};

inline constexpr uint32_t kNoStep = ~0u;  // of an entry from the first, in kAlignment

// Whether a block's rows are no more than lanes, and units and steps have numbers of 32 bits.
template <class Mover>
bool lanes_suffice_for_rows(const GatherCall& call, const Mover& mover) {
  const int64_t columns = mover.columns;
  if (!lanes_suffice(call.tables) || kBlockUnits > 31 * columns || columns > kMostLaneColumns ||
      columns > (NarrowDivisor::kEnd - kBlockUnits) / call.tables.num_rows) {
    return false;
  }
  const EntryRows& rows = mover.rows;
  const int64_t last_entry = (int64_t{call.tables.num_blocks} - 1) * rows.block_stride_bytes +
                             (call.block_size - 1) * rows.entry_stride_bytes;
  return last_entry / Mover::kAlignment < int64_t{kNoStep} &&
         rows.row_stride_bytes < int64_t{kNoStep};
}

// The thread's first unit, counted from the start of its block's first row.
struct BlockUnits {
  uint32_t first_row;
  uint32_t thread_unit;
};

__device__ __forceinline__ Divided<uint32_t> row_and_column(const LanesShape& shape,
                                                            const BlockUnits& units, int j) {
  const uint32_t unit = units.thread_unit + static_cast<uint32_t>(j * kLanesThreads);
  const uint32_t row = __umulhi(unit, shape.reciprocal);
  return {row, unit - row * shape.num_columns};
}

template <class Mover>
__device__ __forceinline__ const char* stepped_entry(const Mover& mover, uint32_t step) {
  const char* const entry = mover.rows.src + uint64_t{step} * Mover::kAlignment;
  __builtin_assume(__isGlobal(entry));
  return entry;
}

// What a block does where not all rows have entries, or tables are not sound.
template <class Mover>
__device__ __forceinline__ void gather_found(const GatherTables& tables, const LanesShape& shape,
                                             const Mover& mover, const GatherReports& reports,
                                             const BlockUnits& units, const LaneRow& at,
                                             bool starts_are_sound, uint32_t step, float scale) {
  if (!starts_are_sound && tables.token_to_seq == nullptr && at.exists) {
    // Several requests may claim a row.
    const Entry entry = find_among_unsound(tables, at.row);
    step = entry.block < 0 ? kNoStep
                           : static_cast<uint32_t>(entry.block) * shape.block_stride +
                                 static_cast<uint32_t>(entry.offset) * shape.entry_stride;
  }
#pragma unroll 1
  for (int j = 0; j < kLanesUnits; ++j) {
    const Divided<uint32_t> unit = row_and_column(shape, units, j);
    const uint32_t unit_step = __shfl_sync(~0u, step, static_cast<int>(unit.quotient));
    if (unit_step == kNoStep) continue;
    const auto value = mover.load(stepped_entry(mover, unit_step), unit.remainder);
    mover.store(mover.place(units.first_row + unit.quotient, 0), unit.remainder, value, scale);
  }
  if (threadIdx.x < 32 && at.exists && step == kNoStep) {
    // Blocks may share a row: that in which it starts says so.
    const uint32_t row_unit = static_cast<uint32_t>(at.row) * shape.num_columns;
    if (row_unit / kBlockUnits == blockIdx.x)
      report_lane_row(tables, reports, starts_are_sound, at.row);
  }
  if (!starts_are_sound && blockIdx.x == 0) report_lane_starts(tables, reports);
}

template <class Mover>
__global__ void __launch_bounds__(kLanesThreads, kLanesBlocks)
    gather_lanes_kernel(const __grid_constant__ GatherTables tables,
                        const __grid_constant__ LanesShape shape,
                        const __grid_constant__ Mover mover,
                        const __grid_constant__ GatherReports reports) {
  const uint32_t lane = threadIdx.x % 32u;
  const LaneStarts own = read_lane_starts<true>(tables, lane);
  prefetch_line(tables, static_cast<int>(threadIdx.x));
  const uint32_t first_unit = blockIdx.x * kBlockUnits;
  const uint32_t first_row = shape.columns.quotient(first_unit);
  const BlockUnits units = {first_row, first_unit - first_row * shape.num_columns + threadIdx.x};
  const LaneRow at = neighbour_row(tables, first_row, lane);
  int32_t request = -1;
  if (tables.token_to_seq != nullptr) request = tables.token_to_seq[at.row];
  const float scale = mover.scale();
  Divided<uint32_t> unit[kLanesUnits];
#pragma unroll
  for (int j = 0; j < kLanesUnits; ++j) unit[j] = row_and_column(shape, units, j);
  const LanePosition position = find_position(tables, own, at, request);
  uint32_t block = ~0u;
  if (position.exists) block = static_cast<uint32_t>(read_block(tables, position));
  const uint32_t offset =
      static_cast<uint32_t>(tables.block_size.remainder(position.position, position.page));
  const bool bad_start = is_bad(tables, own);
  const bool found = block < static_cast<uint32_t>(tables.num_blocks);
  const uint32_t step = found ? block * shape.block_stride + offset * shape.entry_stride : kNoStep;
  const bool is_last = first_unit + kBlockUnits > shape.num_units;
  if (__builtin_expect(__any_sync(~0u, bad_start || (at.exists && !found)) || is_last, false)) {
    const bool sound = __any_sync(~0u, bad_start) == 0;
    gather_found(tables, shape, mover, reports, units, at, sound, step, scale);
    return;
  }
  typename Mover::Loaded values[kLanesUnits];
#pragma unroll
  for (int j = 0; j < kLanesUnits; ++j) {
    const uint32_t unit_step = __shfl_sync(~0u, step, static_cast<int>(unit[j].quotient));
    values[j] = mover.load(stepped_entry(mover, unit_step), unit[j].remainder);
  }
  char* const to = mover.rows.dst + uint64_t{first_row} * shape.row_stride_bytes;
#pragma unroll
  for (int j = 0; j < kLanesUnits; ++j) {
    mover.store(to + uint64_t{unit[j].quotient} * shape.row_stride_bytes, unit[j].remainder,
                values[j], scale);
  }
}

template <class Mover>
cudaError_t launch_gather_lanes(const GatherCall& call, const Mover& mover) {
  const auto num_columns = static_cast<uint32_t>(mover.columns);
  const LanesShape shape = {
      .columns = NarrowDivisor(num_columns),
      .num_columns = num_columns,
      // Rounded up: too much by less than 1 / num_columns for units below 2^32 / num_columns.
      .reciprocal = static_cast<uint32_t>((uint64_t{1} << 32) / num_columns + 1),
      .num_units = static_cast<uint32_t>(call.tables.num_rows) * num_columns,
      .row_stride_bytes = static_cast<uint32_t>(mover.rows.row_stride_bytes),
      .block_stride = static_cast<uint32_t>(mover.rows.block_stride_bytes / Mover::kAlignment),
      .entry_stride = static_cast<uint32_t>(mover.rows.entry_stride_bytes / Mover::kAlignment),
  };
  const unsigned blocks = (shape.num_units + kBlockUnits - 1) / kBlockUnits;
  return launch_kernel(gather_lanes_kernel<Mover>, blocks, kLanesThreads, call.stream, call.tables,
                       shape, mover, call.reports);
}

}  // namespace kvops::kernels
