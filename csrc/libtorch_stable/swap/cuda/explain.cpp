// See explain.h. Walks through the lists of a plan as CopyRun does, when all copies are known.
#include "swap/cuda/explain.h"

#include <span>

#include "swap/cuda/driver_entry.h"
#include "swap/cuda/memory_map.h"

namespace kvops::cuda {
namespace {

bool is_over_link(CopyKind kind) {
  return kind == CopyKind::kToDevice || kind == CopyKind::kToHost;
}

class Explainer {
 public:
  explicit Explainer(const PathChoice& choice) : choice_(choice) {}

  void explain(CopyKind kind, std::span<const Copy> copies) {
    ExplainedPart scattered{.kind = kind};
    for (size_t at = 0; at < copies.size();) {
      const std::span<const Copy> rest = copies.subspan(at);
      const size_t rows = is_over_link(kind) ? choice_.rows(rest) : 1;
      ExplainedPart part{.kind = kind, .path = kSwapStrided, .is_rows = true};
      for (size_t i = 0; i < rows; ++i) part.bytes += rest[i].bytes;
      part.copies = rows;
      if (rows >= kLeastRows && choice_.strided(kind, rows, part.bytes)) {
        finish(part);
      } else {
        scattered.copies += rows;
        scattered.bytes += part.bytes;
      }
      at += rows;
    }
    if (scattered.copies == 0) return;
    scattered.path = kind == CopyKind::kSingly
                         ? unsigned{kSwapSingle}
                         : choice_.scattered(kind, scattered.copies, scattered.bytes);
    finish(scattered);
  }

  std::vector<ExplainedPart> take() { return std::move(parts_); }

 private:
  void finish(ExplainedPart part) {
    for (int i = 0; i < kNumModelPaths && is_over_link(part.kind); ++i) {
      part.microseconds[i] =
          choice_.microseconds(kModelPaths[i], part.kind, part.copies, part.bytes);
    }
    if (is_over_link(part.kind)) {
      part.led_microseconds = choice_.lead(part.kind, part.copies, part.bytes).microseconds;
    }
    parts_.push_back(part);
  }

  const PathChoice& choice_;
  std::vector<ExplainedPart> parts_;
};

}  // namespace

std::vector<ExplainedPart> explain_copies(const SwapBlocksBatchParams& p, int device,
                                          const PathChoice& choice) {
  MemoryMap memory("swap_blocks_batch", driver_entry());
  CopyPlanner planner(memory, device);
  for (int64_t i = 0; i < p.num_copies; ++i) {
    const Copy copy = copy_of(p, i);
    if (!copies_nothing(copy)) planner.add(copy);
  }
  Explainer explainer(choice);
  for (int kind = 0; kind < kNumCopyKinds; ++kind) {
    explainer.explain(static_cast<CopyKind>(kind), planner.list(static_cast<CopyKind>(kind)));
  }
  return explainer.take();
}

}  // namespace kvops::cuda
