// Transfers that the host plans, from indices that it can read: runs of tokens, one copy for each
// run and row, carried out by the engine of the swaps (swap/cuda/copy_run.h).
// Called by the direct forms, and by kernel forms whose memory no kernel reaches.
#pragma once

#include <span>

#include "common/cuda/context.h"
#include "transfer/params.h"

namespace kvops::cuda {

struct PlannedTransfer {
  const int64_t* src_indices;  // [num_items], on the host
  const int64_t* dst_indices;  // [num_items], on the host
  int64_t num_items;
  TokenGrid src;
  TokenGrid dst;
  std::span<const TransferRow> rows;
};

// Skips indices that are out of range, and records the first; in checked mode, raises for it. A
// RelaxedCapture must be alive.
void run_planned(const CudaContext& context, const PlannedTransfer& transfer);

// Copies whose ranges have been checked already.
void run_ranges(const CudaContext& context, const EmbeddingRangesParams& params);

}  // namespace kvops::cuda
