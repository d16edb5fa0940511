// See path_choice.h.
#include "swap/cuda/path_choice.h"

#include <algorithm>

#include "swap/cuda/driver_copies.h"

namespace kvops::cuda {
namespace {

// A kernel must be this much faster than the driver to be worth the multiprocessors.
constexpr double kWorthIt = 0.97;
// Two events, made, recorded and waited for (H200).
constexpr double kDetourMicroseconds = 4;
// Nothing of a batch moves before the driver has accepted its first call, and the link is not busy
// before the second: so much of each copy in those (likewise).
constexpr double kLeadMicroseconds = 0.3;
constexpr size_t kLeadCopies = 72;

}  // namespace

double PathChoice::microseconds(SwapPath path, CopyKind kind, size_t copies, size_t bytes) const {
  double time = model->cost(kind, path).of(copies, bytes);
  if (path == kSwapBatch) {
    if (on_default_stream) time += kDetourMicroseconds;
    time += kLeadMicroseconds * static_cast<double>(std::min(copies, kLeadCopies));
  }
  return time;
}

unsigned PathChoice::possible() const {
  unsigned paths = allowed;
  if (!has_batch || capturing) paths &= ~static_cast<unsigned>(kSwapBatch);
  if (!has_2d) paths &= ~static_cast<unsigned>(kSwapStrided);
  return paths;
}

unsigned PathChoice::cheapest(unsigned paths, CopyKind kind, size_t copies, size_t bytes) const {
  unsigned best = 0;
  double least = 0;
  for (const SwapPath path : kModelPaths) {
    if ((paths & path) == 0) continue;
    const double time = microseconds(path, kind, copies, bytes);
    // The kernel comes first: what takes no multiprocessor wins if it is about as fast.
    const double limit = best == kSwapKernel ? least / kWorthIt : least;
    if (best != 0 && time >= limit) continue;
    best = path;
    least = time;
  }
  return best;
}

unsigned PathChoice::scattered(CopyKind kind, size_t copies, size_t bytes) const {
  unsigned paths = possible() & ~static_cast<unsigned>(kSwapStrided);
  const bool worth_a_batch = copies > 1 || allowed == kSwapBatch;
  if (!worth_a_batch) paths &= ~static_cast<unsigned>(kSwapBatch);
  const bool by_kernel = (paths & kSwapKernel) != 0;
  // The driver's engines reach a twentieth of what the multiprocessors do.
  if (kind == CopyKind::kWithinDevice && by_kernel) return kSwapKernel;
  if (kind == CopyKind::kToDevice || kind == CopyKind::kToHost) {
    const unsigned best = cheapest(paths, kind, copies, bytes);
    if (best != 0) return best;
  }
  // What is allowed cannot be, or the model does not know: by the driver, together if it can.
  const bool singly = (allowed & kSwapBatch) == 0 && (allowed & kSwapSingle) != 0;
  return has_batch && !capturing && !singly && worth_a_batch ? kSwapBatch : kSwapSingle;
}

bool PathChoice::strided(CopyKind kind, size_t rows, size_t bytes) const {
  return cheapest(possible(), kind, rows, bytes) == kSwapStrided;
}

size_t PathChoice::rows(std::span<const Copy> copies) const {
  return (possible() & kSwapStrided) != 0 ? rows_of_2d(copies) : 1;
}

}  // namespace kvops::cuda
