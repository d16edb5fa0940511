// Launches of one table. Called by copy_launch.cpp, which fills them.
#pragma once

#include "swap/cuda/kernels/copy_launch.h"
#include "swap/cuda/kernels/copy_table.h"

namespace kvops::kernels {

// copy_rows.cu; any RowTable.
template <class Table>
cudaError_t launch_rows(Table& table, const CopyLaunch& launch);

// copy_blocks.cu; pieces of kPieceBytes.
cudaError_t launch_blocks(BlockTable& table, const CopyLaunch& launch);

// copy_ring.cu; any table, pieces of kRingPieceBytes. Fills table.ring.
template <class Table>
cudaError_t launch_ring(Table& table, const CopyLaunch& launch);

}  // namespace kvops::kernels
