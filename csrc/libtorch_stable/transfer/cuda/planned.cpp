// Transfers that the host plans. See planned.h.
#include "transfer/cuda/planned.h"

#include <string>

#include "common/checked_mode.h"
#include "swap/cuda/copy_run.h"
#include "swap/cuda/driver_entry.h"
#include "swap/cuda/stream_order.h"
#include "transfer/cuda/kernels/report_index.h"
#include "transfer/token_runs.h"
#include "transfer/validate.h"

namespace kvops::cuda {
namespace {

const DriverEntry& driver_of(const CudaContext& context) {
  const DriverEntry* driver = driver_entry();
  if (driver == nullptr)
    fail({context.op(), "dst"}, "must be reachable by a CUDA driver, got none");
  return *driver;
}

// Numbers the copies, for messages.
class Copies {
 public:
  explicit Copies(CopyRun& run) : run_(run) {}

  void add(const TransferRow& row, const TokenGrid& src, const TokenGrid& dst,
           const TokenRun& tokens) {
    for_each_copy(row, src, dst, tokens, [this](const char* from, const char* to, int64_t bytes) {
      if (bytes == 0 || from == to) return;
      run_.add({.src = reinterpret_cast<uintptr_t>(from),
                .dst = reinterpret_cast<uintptr_t>(to),
                .bytes = static_cast<size_t>(bytes),
                .index = count_++});
    });
  }

 private:
  CopyRun& run_;
  int64_t count_ = 0;
};

int64_t total_bytes(std::span<const TransferRow> rows, int64_t items) {
  int64_t bytes = 0;
  for (const TransferRow& row : rows) bytes += row.bytes;
  return bytes * items;
}

}  // namespace

void run_planned(const CudaContext& context, const PlannedTransfer& t) {
  if (checked_mode()) {
    check_transfer_indices(context.op(), t.src_indices, t.dst_indices, t.num_items, t.src, t.dst);
  }
  const TokenRuns tokens = find_runs(t.src_indices, t.dst_indices, t.num_items, t.src, t.dst);
  make_current(context);
  if (tokens.first_bad.argument != nullptr) {
    context.check(kernels::launch_report_index(context.skips(tokens.first_bad.argument),
                                               tokens.first_bad, context.stream()));
  }
  CopyRun run(context, driver_of(context),
              {.any_order = false,
               .num_copies = static_cast<int64_t>(tokens.runs.size() * t.rows.size()),
               .total_bytes = total_bytes(t.rows, t.num_items)});
  Copies copies(run);
  for (const TokenRun& run_of_tokens : tokens.runs) {
    for (const TransferRow& row : t.rows) copies.add(row, t.src, t.dst, run_of_tokens);
  }
  run.finish();
}

void run_ranges(const CudaContext& context, const EmbeddingRangesParams& p) {
  const TokenGrid rows{.num_tokens = kUnknownTokens, .page_tokens = 1};
  int64_t items = 0;
  for (int64_t i = 0; i < p.num_ranges; ++i) items += p.lengths[i];
  make_current(context);
  CopyRun run(context, driver_of(context),
              {.any_order = false,
               .num_copies = p.num_ranges,
               .total_bytes = total_bytes({&p.row, 1}, items)});
  Copies copies(run);
  for (int64_t i = 0; i < p.num_ranges; ++i) {
    copies.add(p.row, rows, rows, {p.src_starts[i], p.dst_starts[i], p.lengths[i]});
  }
  run.finish();
}

}  // namespace kvops::cuda
