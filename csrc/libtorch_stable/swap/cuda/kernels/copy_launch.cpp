// Chooses the table for the next copies of a list, and launches it. See copy_launch.h.
#include "swap/cuda/kernels/copy_launch.h"

#include <algorithm>

#include "swap/cuda/kernels/table_fill.h"

namespace kvops::kernels {

static_assert(kMostCopies == RowTable::kCapacity);

cudaError_t launch_copies(std::span<const cuda::Copy> copies, const CopyLaunch& launch,
                          size_t& launched) {
  launched = 0;
  const RowFit fit = fit_rows(copies);
  const size_t by_blocks = std::min<size_t>(copies.size(), BlockTable::kCapacity);
  if (fit.count >= by_blocks) {
    launched = fit.count;
    return launch_rows(fill_rows(copies, fit), launch);
  }
  launched = by_blocks;
  BlockTable table;
  // More than one table only for copies beyond kMaxEntryBytes.
  for (BlockFiller filler(copies.first(by_blocks)); filler.fill(table);) {
    const cudaError_t error = launch_blocks(table, launch);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace kvops::kernels
