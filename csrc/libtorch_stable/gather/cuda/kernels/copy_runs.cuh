// The gather of keys and scales by bulk copies: keys that are neighbours in a page and become
// neighbouring rows go through shared memory as one piece, without registers. A warp takes 32 rows;
// its lanes find an entry each, and copy the scales of it.
// Launched by cp_gather_indexer_k_quant_cache where can_copy_runs, which is on sm_90 and newer.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "common/cuda/bulk_copy.cuh"
#include "common/cuda/launch.cuh"
#include "gather/cuda/kernels/copy_rows.cuh"
#include "gather/cuda/kernels/lane_requests.cuh"

namespace kvops::kernels {

inline constexpr int kRunThreads = 128;        // a row each
inline constexpr int64_t kMostRunBytes = 256;  // of a row's keys, so that blocks are many

// Keys are moved in units of 16 bytes, scales in units of 4.
inline bool can_copy_runs(const GatherCall& call, const EntryRows& keys, const EntryRows& scales) {
  return call.architecture >= 90 && lanes_suffice(call.tables) && common_unit_bytes(keys) == 16 &&
         keys.row_bytes <= kMostRunBytes && common_unit_bytes(scales) >= 4;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// The rows of a warp that its lane `lane` copies at once: as many as follow one another from this
// lane's on. None for lanes whose row follows that of the lane before, or whose `from` is null.
static __device__ __forceinline__ uint32_t rows_of_run(const EntryRows& keys, const char* from,
                                                       uint32_t lane) {
  const uint64_t address = reinterpret_cast<uint64_t>(from);
  const uint64_t before = __shfl_up_sync(~0u, address, 1);
  const bool follows = lane > 0 && before != 0 && keys.row_stride_bytes == keys.row_bytes &&
                       address == before + static_cast<uint64_t>(keys.row_bytes);
  const uint32_t later_starts = __ballot_sync(~0u, !follows) & ~((2u << lane) - 1u);
  const uint32_t end = later_starts != 0 ? __ffs(later_starts) - 1 : 32;
  return from == nullptr || follows ? 0 : end - lane;
}

static __device__ __forceinline__ void copy_scales(const EntryRows& scales, const Entry& entry,
                                                   int32_t row) {
  const auto* const from = reinterpret_cast<const uint32_t*>(entry_address(scales, entry));
  auto* const to = reinterpret_cast<uint32_t*>(row_address(scales, row));
  const int64_t words = scales.row_bytes / static_cast<int64_t>(sizeof(uint32_t));
  for (int64_t i = 0; i < words; ++i) to[i] = from[i];
}

#endif

// Shared memory: [kRunThreads, keys.row_bytes].
__global__ void __launch_bounds__(kRunThreads)
    copy_runs_kernel(const __grid_constant__ GatherTables tables,
                     const __grid_constant__ EntryRows keys,
                     const __grid_constant__ EntryRows scales,
                     const __grid_constant__ GatherReports reports) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) char buffers[];
  __shared__ uint64_t barriers[kRunThreads / 32];
  const uint32_t lane = threadIdx.x % 32u;
  uint64_t* const barrier = &barriers[threadIdx.x / 32u];
  const uint32_t first_row = blockIdx.x * kRunThreads + threadIdx.x / 32u * 32u;
  const LaneRow lane_row = neighbour_row(tables, first_row, lane);
  const int32_t row = lane_row.row;
  const LaneStarts own = read_lane_starts<true>(tables, lane);
  prefetch_line(tables, static_cast<int>(threadIdx.x));
  if (lane == 0) {
    init_bulk_barrier(barrier);
    fence_shared_bulk();
  }
  bool sound;
  const Entry entry = find_by_lanes(tables, own, lane_row, -1, -1, 0, sound);
  const bool found = entry.block >= 0;
  const char* const from = found ? entry_address(keys, entry) : nullptr;
  const uint32_t row_bytes = static_cast<uint32_t>(keys.row_bytes);
  const uint32_t run_bytes = rows_of_run(keys, from, lane) * row_bytes;
  const uint32_t rows_found = __popc(__ballot_sync(~0u, found));
  char* const buffer = buffers + threadIdx.x * row_bytes;
  if (lane == 0) expect_bytes(barrier, rows_found * row_bytes);
  __syncwarp();
  if (run_bytes > 0) copy_bulk(buffer, from, run_bytes, barrier);
  if (found) copy_scales(scales, entry, row);
  if (run_bytes > 0) {
    wait_for_bytes(barrier, 0);
    store_bulk(row_address(keys, row), buffer, run_bytes);
    wait_for_stores<0>();
  } else if (lane_row.exists && !found) {
    report_lane_row(tables, reports, sound, row);
  }
  if (__builtin_expect(!sound && blockIdx.x == 0, false)) report_lane_starts(tables, reports);
#endif
}

inline cudaError_t launch_copy_runs(const GatherCall& call, const EntryRows& keys,
                                    const EntryRows& scales) {
  const unsigned blocks =
      static_cast<unsigned>((int64_t{call.tables.num_rows} + kRunThreads - 1) / kRunThreads);
  const size_t shared_bytes = kRunThreads * static_cast<size_t>(keys.row_bytes);
  return launch_kernel_with_shared(copy_runs_kernel, blocks, kRunThreads, shared_bytes, call.stream,
                                   call.tables, keys, scales, call.reports);
}

}  // namespace kvops::kernels
