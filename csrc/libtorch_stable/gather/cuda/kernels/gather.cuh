// The gather kernel: blocks take chunks of rows; one thread per row finds its entry, then all
// threads move the chunk's bytes as one flat list of units, several loads in flight each.
// Launched by the thin operators with a Mover, which says what a unit is and how it is moved.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "gather/cuda/kernels/requests.cuh"

namespace kvops::kernels {

inline constexpr int kGatherThreads = 256;
inline constexpr int kMaxChunkRows = 256;

// Mover: `move(entries, first_row, rows)` is called by all threads of a block.
template <class Mover>
__global__ void __launch_bounds__(kGatherThreads)
    gather_kernel(const __grid_constant__ GatherTables tables, const __grid_constant__ Mover mover,
                  int chunk_rows) {
  __shared__ int32_t shared_starts[kSharedStarts];
  __shared__ Entry entries[kMaxChunkRows];
  const RowStarts starts = load_row_starts(tables, shared_starts);
  if (blockIdx.x == 0) report_bad_starts(tables, starts.values);
  const int64_t num_rows = tables.requests.num_rows;
  const int64_t step = static_cast<int64_t>(gridDim.x) * chunk_rows;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * chunk_rows; first < num_rows;
       first += step) {
    const int rows =
        static_cast<int>(num_rows - first < chunk_rows ? num_rows - first : chunk_rows);
    for (int i = threadIdx.x; i < rows; i += kGatherThreads) {
      entries[i] = tables.token_to_seq != nullptr ? entry_by_token(tables, starts.values, first + i)
                                                  : entry_by_starts(tables, starts, first + i);
    }
    __syncthreads();
    mover.move(entries, first, rows);
    __syncthreads();
  }
}

// Calls load(unit) then store(unit, value) for all units, kDepth loads at a time in flight.
template <int kDepth, class Value, class Load, class Store>
__device__ __forceinline__ void for_units(int64_t units, const Load& load, const Store& store) {
  for (int64_t first = threadIdx.x; first < units; first += int64_t{kDepth} * kGatherThreads) {
    Value values[kDepth];
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      const int64_t unit = first + i * kGatherThreads;
      if (unit < units) values[i] = load(unit);
    }
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      const int64_t unit = first + i * kGatherThreads;
      if (unit < units) store(unit, values[i]);
    }
  }
}

// Chunks large enough to hide how their rows are found, small enough to occupy the device.
template <class Mover>
cudaError_t launch_gather(const GatherTables& tables, const Mover& mover, int64_t row_bytes,
                          int multiprocessors, cudaStream_t stream) {
  const int64_t num_rows = tables.requests.num_rows;
  if (num_rows == 0 || row_bytes == 0) return cudaSuccess;
  constexpr int64_t kChunkBytes = 24 << 10;
  constexpr int kBlocksPerMultiprocessor = 8;
  const int64_t most_blocks = static_cast<int64_t>(multiprocessors) * kBlocksPerMultiprocessor;
  const int64_t spread = (num_rows + most_blocks - 1) / most_blocks;
  const int64_t by_size = std::clamp<int64_t>(kChunkBytes / row_bytes, 1, kMaxChunkRows);
  const int chunk_rows = static_cast<int>(std::min(spread, by_size));
  const int64_t chunks = (num_rows + chunk_rows - 1) / chunk_rows;
  const unsigned blocks = static_cast<unsigned>(std::min(chunks, most_blocks));
  gather_kernel<Mover><<<blocks, kGatherThreads, 0, stream>>>(tables, mover, chunk_rows);
  return cudaGetLastError();
}

}  // namespace kvops::kernels
