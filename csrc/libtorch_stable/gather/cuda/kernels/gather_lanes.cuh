// The gather kernel of many rows of few requests. Like a plain copy, a small block takes some units
// one after the other, wherever rows end, and a thread a few of them, all loads before the first
// store. Each warp finds the entries of the block's rows by itself, a lane each: no warp waits for
// another.
// Launched by launch_gather with its Mover (gather.cuh).
#pragma once

#include <cstdint>

#include "common/cuda/launch.cuh"
#include "gather/cuda/kernels/lane_requests.cuh"

namespace kvops::kernels {

inline constexpr int kLanesThreads = 64;
inline constexpr int kLanesUnits = 4;  // of a thread
// Blocks that a multiprocessor has room for; before sm_90, some end at 16 blocks or 1024 threads.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr int kLanesBlocks = 16;
#else
inline constexpr int kLanesBlocks = 24;
#endif
inline constexpr uint32_t kBlockUnits = kLanesThreads * kLanesUnits;

struct LanesShape {
  NarrowDivisor columns;
  uint32_t num_units;
};

// Whether a block's rows are no more than lanes, and units have numbers below 2^31.
inline bool lanes_suffice_for_rows(const GatherCall& call, int64_t columns) {
  return lanes_suffice(call.tables) && kBlockUnits <= 31 * columns &&
         columns <= (NarrowDivisor::kEnd - kBlockUnits) / call.tables.num_rows;
}

template <class Mover>
__global__ void __launch_bounds__(kLanesThreads, kLanesBlocks)
    gather_lanes_kernel(const __grid_constant__ GatherTables tables, LanesShape shape,
                        const __grid_constant__ Mover mover,
                        const __grid_constant__ GatherReports reports) {
  const uint32_t lane = threadIdx.x % 32u;
  const LaneStarts own = read_lane_starts<true>(tables, lane);
  prefetch_line(tables, static_cast<int>(threadIdx.x));
  const uint32_t first_unit = blockIdx.x * kBlockUnits;
  const int32_t first_row = static_cast<int32_t>(shape.columns.quotient(first_unit));
  const bool has_row = first_row + static_cast<int32_t>(lane) < tables.num_rows;
  const int32_t lane_row = has_row ? first_row + static_cast<int32_t>(lane) : tables.num_rows - 1;
  int32_t request = -1;
  if (tables.token_to_seq != nullptr) request = tables.token_to_seq[lane_row];
  const float scale = mover.scale();
  bool sound;
  const Entry entry = find_by_lanes(tables, own, has_row, lane_row, request, -1, 0, sound);
  const char* const lane_entry = entry.block >= 0 ? mover.locate(entry, 0) : nullptr;
  const char* from[kLanesUnits];
  typename Mover::Loaded values[kLanesUnits];
  Divided<uint32_t> at[kLanesUnits];
#pragma unroll
  for (int j = 0; j < kLanesUnits; ++j) {
    const uint32_t unit = first_unit + j * kLanesThreads + threadIdx.x;
    at[j] = shape.columns.divide(unit);
    const uint64_t address =
        __shfl_sync(~0u, reinterpret_cast<uint64_t>(lane_entry), at[j].quotient - first_row);
    from[j] = unit < shape.num_units ? reinterpret_cast<const char*>(address) : nullptr;
    if (from[j] == nullptr) continue;
    __builtin_assume(__isGlobal(from[j]));
    values[j] = mover.load(from[j], at[j].remainder);
  }
#pragma unroll
  for (int j = 0; j < kLanesUnits; ++j) {
    if (from[j] == nullptr) continue;
    mover.store(static_cast<int32_t>(at[j].quotient), at[j].remainder, values[j], scale);
  }
  if (threadIdx.x < 32 && has_row && __builtin_expect(lane_entry == nullptr, false)) {
    // Blocks may share a row: that in which it starts says so.
    const uint32_t row_unit =
        static_cast<uint32_t>(lane_row) * static_cast<uint32_t>(mover.columns);
    if (row_unit >= first_unit && row_unit < first_unit + kBlockUnits) {
      report_lane_row(tables, reports, sound, lane_row);
    }
  }
  if (__builtin_expect(!sound && blockIdx.x == 0, false)) report_lane_starts(tables, reports);
}

template <class Mover>
cudaError_t launch_gather_lanes(const GatherCall& call, const Mover& mover) {
  const LanesShape shape = {
      .columns = NarrowDivisor(mover.columns),
      .num_units = static_cast<uint32_t>(call.tables.num_rows * mover.columns)};
  const unsigned blocks = (shape.num_units + kBlockUnits - 1) / kBlockUnits;
  return launch_kernel(gather_lanes_kernel<Mover>, blocks, kLanesThreads, call.stream, call.tables,
                       shape, mover, call.reports);
}

}  // namespace kvops::kernels
