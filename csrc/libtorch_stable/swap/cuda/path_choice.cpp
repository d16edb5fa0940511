// See path_choice.h.
#include "swap/cuda/path_choice.h"

#include <algorithm>
#include <cmath>

#include "swap/cuda/driver_copies.h"
#include "swap/cuda/host_pace.h"

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
// From the kernel's last copy until a batch that is waiting for it keeps the link busy (likewise).
constexpr double kHandOverMicroseconds = 15;
// Hosts hand copies over at rates that differ by a third. Where that may be slower than the link
// is, the kernel's part is longer by so much of the difference: the driver never waits for the
// host. Where this host's pace has been measured, it may still rise from call to call: what else
// the host does makes it slower.
constexpr double kHostDiffers = 3;
constexpr double kPaceMayRise = 1.2;
// Above, all hosts are quicker than the link.
constexpr double kLinkBoundBytes = 57344;
// What a batch tells the pace by: its first five calls. The first ones are slower.
constexpr size_t kMeasuredCopies = 261;

// What the host needs beside the batch's fixed time before the link is busy.
double batch_lead(size_t copies) {
  return kLeadMicroseconds * static_cast<double>(std::min(copies, kLeadCopies));
}

}  // namespace

double PathChoice::microseconds(SwapPath path, CopyKind kind, size_t copies, size_t bytes) const {
  const PathCost& cost = model->cost(kind, path);
  if (path != kSwapBatch || copies == 0) return cost.of(copies, bytes);
  const auto number = static_cast<double>(copies);
  const double time = cost.fixed + number * one_of_batch(kind, static_cast<double>(bytes) / number);
  return time + batch_lead(copies) + (on_default_stream ? kDetourMicroseconds : 0);
}

double PathChoice::one_of_batch(CopyKind kind, double copy_bytes) const {
  const double by_model = model->cost(kind, kSwapBatch).one(copy_bytes);
  if (host_pace <= 0 || copy_bytes < kPacedBytes || copy_bytes > kLinkBoundBytes) return by_model;
  return std::max(kPaceMayRise * host_pace, model->cost(kind, kSwapStrided).one(copy_bytes));
}

bool PathChoice::hangs_on_pace(size_t copies, size_t bytes) const {
  const double copy_bytes = static_cast<double>(bytes) / static_cast<double>(copies);
  return copies >= 3 * kMeasuredCopies && kPacedBytes <= copy_bytes &&
         copy_bytes <= kLinkBoundBytes;
}

// While the kernel is at the first n of all copies, the host gets the lead that the driver needs to
// be as fast as the link with the others: as it is with rows, which cost the host nothing.
PathChoice::Lead PathChoice::lead_at_pace(CopyKind kind, size_t copies, size_t bytes) const {
  const auto number = static_cast<double>(copies);
  const double copy_bytes = static_cast<double>(bytes) / number;
  const double by_kernel = model->cost(kind, kSwapKernel).one(copy_bytes);
  const double by_link = model->cost(kind, kSwapStrided).one(copy_bytes);
  const double behind =
      (host_pace > 0 ? 1 : kHostDiffers) * std::max(0.0, one_of_batch(kind, copy_bytes) - by_link);
  const double start = model->cost(kind, kSwapBatch).fixed + batch_lead(copies);
  const double n = std::ceil((start + behind * number) / (by_kernel + behind));
  return 3 * n <= number ? lead_of(static_cast<size_t>(n), kind, copies, bytes) : Lead{0, 0};
}

PathChoice::Lead PathChoice::lead_of(size_t lead_copies, CopyKind kind, size_t copies,
                                     size_t bytes) const {
  const double copy_bytes = static_cast<double>(bytes) / static_cast<double>(copies);
  const double by_kernel = model->cost(kind, kSwapKernel).one(copy_bytes);
  const double by_link = model->cost(kind, kSwapStrided).one(copy_bytes);
  const double time = model->cost(kind, kSwapKernel).fixed +
                      static_cast<double>(lead_copies) * by_kernel + kHandOverMicroseconds +
                      static_cast<double>(copies - lead_copies) * by_link;
  return {lead_copies, time + (on_default_stream ? kDetourMicroseconds : 0)};
}

PathChoice::Lead PathChoice::lead(CopyKind kind, size_t copies, size_t bytes) const {
  const Lead found = lead_at_pace(kind, copies, bytes);
  const bool measures = found.copies == 0 && host_pace <= 0 && hangs_on_pace(copies, bytes);
  return measures ? lead_of(copies - kMeasuredCopies, kind, copies, bytes) : found;
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
  // The kernel comes first: what takes fewer multiprocessors wins if it is about as fast.
  const auto offer = [&](unsigned path, double time) {
    const double limit = (best & kSwapKernel) != 0 ? least / kWorthIt : least;
    if (best != 0 && time >= limit) return;
    best = path;
    least = time;
  };
  for (const SwapPath path : kModelPaths) {
    if ((paths & path) != 0) offer(path, microseconds(path, kind, copies, bytes));
    if (path != kSwapKernel || (paths & kLedBatch) != kLedBatch) continue;
    const Lead led = lead(kind, copies, bytes);
    if (led.copies > 0) offer(kLedBatch, led.microseconds);
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
