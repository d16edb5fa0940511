// What CopyRun would do with copies, in numbers, without doing it. For kvops.swap.explain().
// A driver must be there; no CUDA runtime is needed, and no context of our own is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "swap/cuda/path_choice.h"
#include "swap/params.h"

namespace kvops::cuda {

// Copies of one kind that go one way.
struct ExplainedPart {
  CopyKind kind;
  size_t copies;  // after neighbours have been joined
  size_t bytes;
  unsigned path;                        // a bit of SwapPath, or kLedBatch
  bool is_rows;                         // at constant distances
  double microseconds[kNumModelPaths];  // as the model has it; only for copies over the link
  double led_microseconds;              // likewise, for kLedBatch; 0 where that cannot be
};

std::vector<ExplainedPart> explain_copies(const SwapBlocksBatchParams& params, int device,
                                          const PathChoice& choice);

}  // namespace kvops::cuda
