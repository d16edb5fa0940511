// The kernel forms on CPU: every row of every token is a copy, in parallel over both.
// Registered as kvops::transfer_kv_* for CPU tensors, through Transfer<> (transfer/ops.h).
// Addresses in tables are taken at their word, but for null.
#include <cstring>

#include "common/checked_mode.h"
#include "common/parallel.h"
#include "swap/paths.h"
#include "transfer/ops.h"
#include "transfer/token_runs.h"

namespace kvops::cpu {
namespace {

constexpr int64_t kBytesPerTask = 64 << 10;

LayerTables checked_tables(const TransferParams& p) {
  const auto checked = [&p](const TokenMemory& memory) {
    if (memory.layers != nullptr) check_addresses(p.op, memory.name, memory.layers, p.num_layers);
    return memory.layers;
  };
  LayerTables tables{};
  for (int part = 0; part < p.num_parts; ++part) {
    tables.src[part] = checked(p.src.memory[part]);
    tables.dst[part] = checked(p.dst.memory[part]);
  }
  return tables;
}

}  // namespace

void run_transfer(const TransferParams& p) {
  if (checked_mode()) {
    check_transfer_indices(p.op, p.src_indices, p.dst_indices, p.num_items, p.src.grid, p.dst.grid);
  }
  if (p.num_items == 0) return;
  const std::vector<TransferRow> rows = rows_of(p, checked_tables(p));
  const TokenRuns tokens =
      find_runs(p.src_indices, p.dst_indices, p.num_items, p.src.grid, p.dst.grid);
  const auto num_runs = static_cast<int64_t>(tokens.runs.size());
  if (num_runs == 0) return;
  const int64_t bytes_per_run = p.chunk_bytes * ((p.num_items + num_runs - 1) / num_runs);
  const int64_t pieces = static_cast<int64_t>(rows.size()) * num_runs;
  parallel_for(pieces, 1 + kBytesPerTask / bytes_per_run, [&](int64_t begin, int64_t end) noexcept {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t row = piece / num_runs;
      for_each_copy(rows[static_cast<size_t>(row)], p.src.grid, p.dst.grid,
                    tokens.runs[static_cast<size_t>(piece - row * num_runs)],
                    [](const char* from, char* to, int64_t bytes) {
                      std::memmove(to, from, static_cast<size_t>(bytes));
                    });
    }
  });
  note_swap_paths(kSwapHost);
}

}  // namespace kvops::cpu
