// Which path copies take: what the caller allows, what the driver and the stream make possible, and
// what the model says of the rest. Asked by CopyRun for every call, and by explain.
// Torch-free and runtime-free, so that tests can ask it anywhere.
#pragma once

#include <cstddef>
#include <span>

#include "swap/cuda/copy.h"
#include "swap/cuda/copy_plan.h"
#include "swap/cuda/path_model.h"
#include "swap/paths.h"

namespace kvops::cuda {

// Fewer rows are not worth a driver call of their own, with the scattered ones going another way.
inline constexpr size_t kLeastRows = 16;

// The kernel copies the first ones while the host hands all others over to the driver: the link is
// busy from the start, and most of the time without any multiprocessor.
inline constexpr unsigned kLedBatch = kSwapKernel | kSwapBatch;

struct PathChoice {
  unsigned allowed;        // bits of the caller's wishes
  bool has_batch;          // the driver has the batch call
  bool has_2d;             // likewise
  bool capturing;          // into a graph: the batch call cannot be
  bool on_default_stream;  // the batch call needs a detour there
  const PathModel* model;
  double host_pace;  // of the device's (host_pace.h); 0 if it is not known

  // What a path would take for copies over the link.
  double microseconds(SwapPath path, CopyKind kind, size_t copies, size_t bytes) const;

  // Of kLedBatch: how many of the first ones, and what it would take with so many; 0 copies if the
  // driver would get less than two thirds. Where that hangs on the host's pace, and nobody knows
  // it, all but the last ones: those are for measuring it.
  struct Lead {
    size_t copies;
    double microseconds;
  };
  Lead lead(CopyKind kind, size_t copies, size_t bytes) const;

  // Whether it hangs on the host's pace how copies are made best.
  bool hangs_on_pace(size_t copies, size_t bytes) const;

  // The path for scattered copies of a kind, of which there are about this many: one bit, or
  // kLedBatch.
  unsigned scattered(CopyKind kind, size_t copies, size_t bytes) const;

  // Whether rows at constant distances, over the link, are best copied as one.
  bool strided(CopyKind kind, size_t rows, size_t bytes) const;

  // How many copies of the front to look at as rows: 1 if they are none.
  size_t rows(std::span<const Copy> copies) const;

 private:
  double one_of_batch(CopyKind kind, double copy_bytes) const;
  Lead lead_at_pace(CopyKind kind, size_t copies, size_t bytes) const;
  Lead lead_of(size_t lead_copies, CopyKind kind, size_t copies, size_t bytes) const;
  unsigned cheapest(unsigned paths, CopyKind kind, size_t copies, size_t bytes) const;
  unsigned possible() const;
};

}  // namespace kvops::cuda
