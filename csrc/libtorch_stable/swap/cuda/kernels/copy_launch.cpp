// Chooses the table and the kernel for the next copies of a list, and launches it. See
// copy_launch.h.
#include "swap/cuda/kernels/copy_launch.h"

#include <algorithm>

#include "swap/cuda/kernels/table_fill.h"
#include "swap/cuda/kernels/table_launch.h"

namespace kvops::kernels {
namespace {

static_assert(kMostCopies == LargeNearTable::kCapacity);
static_assert(kQuickCopies == SmallNearTable::kCapacity);
static_assert(kFewCopies == SmallRowTable::kCapacity && kFewCopies == FewNearTable::kCapacity);

template <class Table>
cudaError_t launch_as(std::span<const cuda::Copy> copies, const RowFit& fit,
                      const CopyLaunch& launch) {
  auto table = fill_rows<Table>(copies, fit);
  return launch.ring_ctas > 0 ? launch_ring(table, launch) : launch_rows(table, launch);
}

bool are_whole_units(std::span<const cuda::Copy> copies) {
  uint64_t bits = 0;
  for (const cuda::Copy& copy : copies) bits |= copy.src | copy.dst | copy.bytes;
  return bits % kUnitBytes == 0;
}

cudaError_t launch_as_blocks(std::span<const cuda::Copy> copies, CopyLaunch launch) {
  const bool through_ring = launch.ring_ctas > 0 && are_whole_units(copies);
  // It takes a thread longer to find its pieces here than in rows.
  launch.ring_ctas = std::min(launch.ring_ctas + launch.ring_ctas / 2, kMostRingCtas);
  BlockTable table;
  // More than one table only for copies beyond kMaxEntryBytes.
  for (BlockFiller filler(copies, through_ring ? kRingPieceBytes : kPieceBytes);
       filler.fill(table);) {
    const cudaError_t error =
        through_ring ? launch_ring(table, launch) : launch_blocks(table, launch);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t launch_copies(std::span<const cuda::Copy> copies, const CopyLaunch& launch,
                          size_t& launched) {
  const RowFit fit = fit_rows(copies);
  const size_t by_blocks = std::min<size_t>(copies.size(), BlockTable::kCapacity);
  if (fit.count < by_blocks) {
    launched = by_blocks;
    return launch_as_blocks(copies.first(by_blocks), launch);
  }
  launched = fit.count;
  if (fit.is_near) {
    if (fit.count <= kFewCopies) return launch_as<FewNearTable>(copies, fit, launch);
    return fit.count <= kQuickCopies ? launch_as<SmallNearTable>(copies, fit, launch)
                                     : launch_as<LargeNearTable>(copies, fit, launch);
  }
  return fit.count <= kFewCopies ? launch_as<SmallRowTable>(copies, fit, launch)
                                 : launch_as<LargeRowTable>(copies, fit, launch);
}

}  // namespace kvops::kernels
