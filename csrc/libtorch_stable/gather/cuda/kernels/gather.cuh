// The gather kernel: a block takes a tile of neighbouring rows. Its first threads find the rows'
// entries, one each; then every thread keeps a column of units and moves it for several rows at
// once, all loads before the first store. Tiles are small and many: while blocks look up, others
// move.
// Launched by the thin operators with a Mover, which says what a unit is and how it is moved. Calls
// of so few requests that a warp's lanes suffice for them go to gather_few.cuh if rows are few, and
// to gather_lanes.cuh if rows are wide and in one part.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "common/cuda/launch.cuh"
#include "gather/cuda/kernels/gather_few.cuh"
#include "gather/cuda/kernels/gather_lanes.cuh"
#include "gather/cuda/kernels/requests.cuh"

namespace kvops::kernels {

inline constexpr int kMaxGatherThreads = 320;
inline constexpr int kRowsAtOnce = 4;   // of a thread
inline constexpr int kRounds = 2;       // of these, so that a block looks up once for many bytes
inline constexpr int kWantedTiles = 8;  // for each multiprocessor, before they become large
// Blocks that a multiprocessor has room for; Turing's ends at 1024 threads.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
inline constexpr int kGatherBlocks = 3;
#else
inline constexpr int kGatherBlocks = 4;
#endif

// Mover: a row has `columns` units, in one part or two that lie apart; `part(column)` says which,
// and `locate(entry, part)` where that part of an entry is, `place(row, part)` where that of a row.
// `load(entry_address, column)` reads a unit, `store(row_address, column, loaded, scale)` writes
// what becomes of it; `scale()` is read once, before anything is waited for. Entries are at
// multiples of `kAlignment` bytes from the first.
// Blocks are (lanes, slots): a slot's lanes take the columns of a row. A block has no fewer threads
// than its tile has rows, `tile_rows`.
template <class Mover>
__global__ void __launch_bounds__(kMaxGatherThreads, kGatherBlocks)
    gather_kernel(const __grid_constant__ GatherTables tables, int tile_rows,
                  const __grid_constant__ Mover mover,
                  const __grid_constant__ GatherReports reports) {
  extern __shared__ int32_t shared_starts[];
  __shared__ const char* found[Mover::kParts][kMaxGatherThreads];  // null: the row has no entry
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  const int first = static_cast<int>(blockIdx.x) * tile_rows;
  const bool has_row = thread < tile_rows && thread < tables.num_rows - first;
  const bool by_token = tables.token_to_seq != nullptr && has_row;
  const int32_t request = by_token ? tables.token_to_seq[first + thread] : -1;
  const float scale = mover.scale();
  prefetch_line(tables, thread);
  const RowStarts starts = load_starts(tables, shared_starts, thread, threads);
  Entry entry = {-1, 0};
  if (has_row) entry = find_entry(tables, starts, request, first + thread);
#pragma unroll
  for (int part = 0; part < Mover::kParts; ++part) {
    found[part][thread] = entry.block >= 0 ? mover.locate(entry, part) : nullptr;
  }
  __syncthreads();
  const int slots = static_cast<int>(blockDim.y);
#pragma unroll 1
  for (int64_t column = threadIdx.x; column < mover.columns; column += blockDim.x) {
    const int part = mover.part(column);
#pragma unroll 1
    for (int base = threadIdx.y; base < tile_rows; base += kRowsAtOnce * slots) {
      const char* from[kRowsAtOnce];
      typename Mover::Loaded values[kRowsAtOnce];
#pragma unroll
      for (int j = 0; j < kRowsAtOnce; ++j) {
        const int row = base + j * slots;
        from[j] = row < tile_rows ? found[part][row] : nullptr;
      }
#pragma unroll
      for (int j = 0; j < kRowsAtOnce; ++j) {
        if (from[j] == nullptr) continue;
        // Else an address out of shared memory is taken for one of any memory.
        __builtin_assume(__isGlobal(from[j]));
        values[j] = mover.load(from[j], column);
      }
#pragma unroll
      for (int j = 0; j < kRowsAtOnce; ++j) {
        if (from[j] == nullptr) continue;
        mover.store(mover.place(first + base + j * slots, part), column, values[j], scale);
      }
    }
  }
  if (has_row && entry.block < 0) report_row(tables, reports, starts, first + thread);
  if (!starts.are_sound && blockIdx.x == 0) {
    report_bad_starts(tables, reports, starts, thread, threads);
  }
}

// Groups of lanes in a block, such that few threads of its warps are idle.
inline int slots_for(int lanes) {
  int best = 1;
  const auto idle = [lanes](int slots) { return (32 - lanes * slots % 32) % 32; };
  for (int slots = 1; slots * lanes <= kMaxGatherThreads; ++slots) {
    if (idle(slots) * best <= idle(best) * slots) best = slots;
  }
  return best;
}

// On entry there are rows and columns.
template <class Mover>
cudaError_t launch_tiles(const GatherCall& call, const Mover& mover) {
  const int64_t num_rows = call.tables.num_rows;
  const int lanes = static_cast<int>(std::min<int64_t>(mover.columns, kMaxGatherThreads));
  // Few rows should still reach every multiprocessor.
  const int64_t wanted_tiles = int64_t{kWantedTiles} * call.multiprocessors;
  const int64_t spread = (num_rows + wanted_tiles - 1) / wanted_tiles;
  const int slots = static_cast<int>(std::min<int64_t>(slots_for(lanes), spread));
  const int most_rows = slots * std::min(kRowsAtOnce * kRounds, lanes);
  const int tile_rows = static_cast<int>(std::min<int64_t>(most_rows, spread));
  // No device has the memory for 2^31 tiles.
  const int64_t tiles = (num_rows + tile_rows - 1) / tile_rows;
  const dim3 threads(static_cast<unsigned>(lanes), static_cast<unsigned>(slots));
  const int shared_bytes = shared_starts_bytes(call.tables);
  return launch_kernel_with_shared(gather_kernel<Mover>, static_cast<unsigned>(tiles), threads,
                                   static_cast<size_t>(shared_bytes), call.stream, call.tables,
                                   tile_rows, mover, call.reports);
}

template <class Mover>
cudaError_t launch_gather(const GatherCall& call, const Mover& mover) {
  if (call.tables.num_rows == 0 || mover.columns == 0) return cudaSuccess;
  if (are_few(call, mover.columns)) return launch_gather_few(call, mover);
  if constexpr (Mover::kParts == 1) {
    if (lanes_suffice_for_rows(call, mover)) return launch_gather_lanes(call, mover);
  }
  return launch_tiles(call, mover);
}

}  // namespace kvops::kernels
