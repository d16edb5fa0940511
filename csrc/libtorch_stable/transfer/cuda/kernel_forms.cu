// The kernel forms on CUDA: one launch, indices stay on the device.
// Registered as kvops::transfer_kv_* for CUDA tensors, through Transfer<> (transfer/ops.h).
// Host memory that no kernel reaches is left to the engine of the swaps, planned by the host.
#include <optional>
#include <vector>

#include "common/checked_mode.h"
#include "common/checks.h"
#include "common/cuda/capture.h"
#include "common/cuda/context.h"
#include "common/cuda/host_indices.h"
#include "swap/cuda/memory_map.h"
#include "swap/cuda/stream_order.h"
#include "swap/paths.h"
#include "transfer/cuda/kernels/transfer_items.cuh"
#include "transfer/cuda/planned.h"
#include "transfer/cuda/reachable.h"
#include "transfer/ops.h"
#include "transfer/token_runs.h"

namespace kvops::cuda {
namespace {

// The link to the host needs no more to be full.
constexpr int64_t kLinkBlocks = 16;
constexpr int64_t kBlocksPerMultiprocessor = 2;

void check_indices(const CudaContext& context, const TransferParams& p) {
  if (!checked_mode()) return;
  const HostIndices src(context, "src_indices", p.src_indices, p.num_items);
  const HostIndices dst(context, "dst_indices", p.dst_indices, p.num_items);
  TokenGrid src_grid = p.src.grid;
  TokenGrid dst_grid = p.dst.grid;
  if (p.num_items > 0) {
    make_current(context);
    MemoryMap map(p.op, driver_entry());
    const auto behind_tables = [&](const TransferSide& side, const HostIndices<int64_t>& indices) {
      return reachable_tokens(context, map, p, side, indices.data());
    };
    if (p.src.memory[0].layers != nullptr) src_grid.num_tokens = behind_tables(p.src, src);
    if (p.dst.memory[0].layers != nullptr) dst_grid.num_tokens = behind_tables(p.dst, dst);
  }
  check_transfer_indices(p.op, src.data(), dst.data(), p.num_items, src_grid, dst_grid);
}

// The first pool on the host whose memory the current device's kernels cannot use, or null.
const TokenMemory* unreachable_memory(const CudaContext& context, const TransferParams& p) {
  MemoryMap map(p.op, driver_entry());
  for (const TransferSide* side : {&p.src, &p.dst}) {
    for (const TokenMemory& memory : side->memory) {
      if (memory.on_host && !is_reachable(map, context.device(), memory)) return &memory;
    }
  }
  return nullptr;
}

bool touches_host(const TransferParams& p) {
  for (const TransferSide* side : {&p.src, &p.dst}) {
    for (const TokenMemory& memory : side->memory) {
      if (memory.on_host) return true;
    }
  }
  return false;
}

int64_t max_blocks(const CudaContext& context, bool over_link) {
  if (over_link) return kLinkBlocks;
  int multiprocessors = 0;
  context.check(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, context.device()),
      "device attribute");
  return multiprocessors * kBlocksPerMultiprocessor;
}

void by_kernel(const CudaContext& context, const TransferParams& p, bool over_link) {
  const auto report = [&context](const TokenMemory& memory) {
    return context.skips(memory.name != nullptr ? memory.name : "");
  };
  const kernels::TransferReports reports{
      .src_indices = context.skips("src_indices"),
      .dst_indices = context.skips("dst_indices"),
      .src_layers = {report(p.src.memory[0]), report(p.src.memory[1])},
      .dst_layers = {report(p.dst.memory[0]), report(p.dst.memory[1])},
  };
  context.check(
      kernels::launch_transfer_items(p, reports, max_blocks(context, over_link), context.stream()));
  note_swap_paths(kSwapKernel);
}

using TableOnHost = std::optional<HostIndices<uint64_t>>;

// The addresses of a table, on the host; null if there is no table.
const uint64_t* read_table(const CudaContext& context, const TransferParams& p,
                           const TokenMemory& memory, TableOnHost& table) {
  if (memory.layers == nullptr) return nullptr;
  table.emplace(context, memory.name, memory.layers, p.num_layers);
  check_addresses(p.op, memory.name, table->data(), p.num_layers);
  return table->data();
}

void by_host(const CudaContext& context, const TransferParams& p, const TokenMemory& pageable) {
  if (is_capturing(context.stream())) {
    fail({p.op, pageable.name},
         "must be in pinned memory under CUDA graph capture, got pageable memory");
  }
  const HostIndices src(context, "src_indices", p.src_indices, p.num_items);
  const HostIndices dst(context, "dst_indices", p.dst_indices, p.num_items);
  TableOnHost tables[2][kMaxParts];
  LayerTables addresses{};
  for (int part = 0; part < p.num_parts; ++part) {
    addresses.src[part] = read_table(context, p, p.src.memory[part], tables[0][part]);
    addresses.dst[part] = read_table(context, p, p.dst.memory[part], tables[1][part]);
  }
  run_planned(context, {.src_indices = src.data(),
                        .dst_indices = dst.data(),
                        .num_items = p.num_items,
                        .src = p.src.grid,
                        .dst = p.dst.grid,
                        .rows = rows_of(p, addresses)});
}

}  // namespace

void run_transfer(const TransferParams& p) {
  const CudaContext context(p.op, p.device);
  const RelaxedCapture relaxed;
  check_indices(context, p);
  if (p.num_items == 0) return;
  const bool over_link = touches_host(p);
  const TokenMemory* pageable = nullptr;
  if (over_link) {
    make_current(context);
    pageable = unreachable_memory(context, p);
  }
  if (pageable == nullptr) {
    by_kernel(context, p, over_link);
  } else {
    by_host(context, p, *pageable);
  }
}

}  // namespace kvops::cuda
