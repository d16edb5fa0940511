// The gather kernel of few rows of few requests, where latency is all: a thread moves one unit, and
// its warp finds the entries. The row starts and the first blocks of the requests are read at once.
// Launched by launch_gather with its Mover (gather.cuh).
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/cuda/launch.cuh"
#include "gather/cuda/kernels/lane_requests.cuh"

namespace kvops::kernels {

inline constexpr int kFewThreads = 128;
inline constexpr int kFewUnits = 512;  // of a multiprocessor

struct FewShape {
  NarrowDivisor columns;
  uint32_t num_units;
  EarlyBlocks early;
};

inline bool are_few(const GatherCall& call, int64_t columns) {
  const int64_t most = int64_t{kFewUnits} * call.multiprocessors;
  return lanes_suffice(call.tables) && columns <= most && call.tables.num_rows * columns <= most;
}

inline FewShape few_shape(const GatherCall& call, int64_t columns) {
  const GatherTables& t = call.tables;
  FewShape shape = {.columns = NarrowDivisor(columns),
                    .num_units = static_cast<uint32_t>(t.num_rows * columns),
                    .early = {}};
  // Without sequence starts, no position is beyond the rows.
  const int64_t needed = (t.num_rows + call.block_size - 1) / call.block_size;
  const int64_t last = call.reports.max_blocks;
  const int64_t pages = t.seq_starts != nullptr ? last : std::min(last, needed);
  if (pages <= 32 && pages * t.num_requests <= 32) {
    shape.early = {.pages = NarrowDivisor(pages),
                   .num_pages = static_cast<uint32_t>(pages),
                   .num_blocks = static_cast<uint32_t>(pages * t.num_requests)};
  }
  return shape;
}

template <class Mover>
__global__ void __launch_bounds__(kFewThreads)
    gather_few_kernel(const __grid_constant__ GatherTables tables, FewShape shape,
                      const __grid_constant__ Mover mover,
                      const __grid_constant__ GatherReports reports) {
  const uint32_t lane = threadIdx.x % 32u;
  const LaneStarts own = read_lane_starts<false>(tables, lane);
  const int32_t early_block = read_early_block(tables, shape.early, lane);
  const uint32_t unit = blockIdx.x * kFewThreads + threadIdx.x;
  const bool has_unit = unit < shape.num_units;
  const Divided<uint32_t> at = shape.columns.divide(has_unit ? unit : shape.num_units - 1);
  const int32_t row = static_cast<int32_t>(at.quotient);
  const uint32_t column = at.remainder;
  int32_t request = -1;
  if (tables.token_to_seq != nullptr) request = read_index(tables.token_to_seq + row);
  const float scale = mover.scale();
  bool sound;
  const LaneRow lane_row = {row, of_lane(row, 0), of_lane(row, 31), has_unit};
  const Entry entry =
      find_by_lanes(tables, own, lane_row, request, early_block, shape.early.num_pages, sound);
  if (__builtin_expect(entry.block >= 0, true)) {
    const int part = mover.part(column);
    const char* const from = mover.locate(entry, part);
    mover.store(mover.place(row, part), column, mover.load(from, column), scale);
  } else if (has_unit && column == 0) {
    report_lane_row(tables, reports, sound, row);
  }
  if (__builtin_expect(!sound && blockIdx.x == 0, false)) report_lane_starts(tables, reports);
}

template <class Mover>
cudaError_t launch_gather_few(const GatherCall& call, const Mover& mover) {
  const FewShape shape = few_shape(call, mover.columns);
  const unsigned blocks = (shape.num_units + kFewThreads - 1) / kFewThreads;
  return launch_kernel(gather_few_kernel<Mover>, blocks, kFewThreads, call.stream, call.tables,
                       shape, mover, call.reports);
}

}  // namespace kvops::kernels
