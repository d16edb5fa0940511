// The direct forms on CPU: lists of host copies, carried out as the swaps do it.
// Registered as kvops::transfer_kv_*direct* for CPU tensors, through Transfer<> (transfer/ops.h).
// Copies take effect in order: where two of them write a byte, the later one wins.
#include <vector>

#include "common/checked_mode.h"
#include "swap/cpu/host_copies.h"
#include "swap/paths.h"
#include "transfer/ops.h"
#include "transfer/token_runs.h"

namespace kvops::cpu {
namespace {

void run(const std::vector<HostCopy>& copies) {
  run_host_copies(copies);
  note_swap_paths(kSwapHost);
}

}  // namespace

void run_transfer(const DirectTransferParams& p) {
  if (checked_mode() && !p.rows.empty()) {
    check_transfer_indices(p.op, p.src_indices, p.dst_indices, p.num_items, p.src, p.dst);
  }
  if (p.rows.empty()) return;
  const TokenRuns tokens = find_runs(p.src_indices, p.dst_indices, p.num_items, p.src, p.dst);
  std::vector<HostCopy> copies;
  copies.reserve(tokens.runs.size() * p.rows.size());
  for (const TokenRun& run : tokens.runs) {
    for (const TransferRow& row : p.rows) {
      for_each_copy(row, p.src, p.dst, run, [&copies](const char* from, char* to, int64_t bytes) {
        if (bytes > 0 && from != to) copies.push_back({from, to, bytes});
      });
    }
  }
  run(copies);
}

void run_transfer(const EmbeddingRangesParams& p) {
  const TokenGrid rows{.num_tokens = kUnknownTokens, .page_tokens = 1};
  std::vector<HostCopy> copies;
  copies.reserve(static_cast<size_t>(p.num_ranges));
  for (int64_t i = 0; i < p.num_ranges; ++i) {
    for_each_copy(p.row, rows, rows, {p.src_starts[i], p.dst_starts[i], p.lengths[i]},
                  [&copies](const char* from, char* to, int64_t bytes) {
                    if (bytes > 0 && from != to) copies.push_back({from, to, bytes});
                  });
  }
  run(copies);
}

}  // namespace kvops::cpu
