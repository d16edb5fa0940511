// The copies of one call, carried out by the best paths: the entry to the swap engine for every
// operator that moves blocks between addresses which the host knows.
//   CopyRun run(context, *driver, {.any_order = false, .num_copies = n, .total_bytes = bytes});
//   for (...) run.add({.src = ..., .dst = ..., .bytes = ..., .index = i});
//   run.finish();
// Everything is work of the context's stream: after what that has, before what it gets next; copies
// among themselves are in no order, and must not overlap. Work may begin with the first add().
// The context's device must be current for our CUDA runtime (make_current), the driver not null
// (driver_entry), and a RelaxedCapture alive. Throws with the operator's name.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/cuda/context.h"
#include "swap/cuda/copy.h"
#include "swap/cuda/copy_plan.h"
#include "swap/cuda/driver_entry.h"
#include "swap/cuda/memory_map.h"
#include "swap/cuda/path_choice.h"
#include "swap/paths.h"

namespace kvops::cuda {

// What is known before the first copy is added; the choice of paths rests on it.
struct CopyHints {
  bool any_order;      // sources may be read before earlier work of the stream is done
  int64_t num_copies;  // that will be added, about
  int64_t total_bytes;
};

class CopyRun {
 public:
  CopyRun(const CudaContext& context, const DriverEntry& driver, const CopyHints& hints)
      : CopyRun(context, driver, hints, MemoryMap(context.op(), &driver)) {}
  // With what the caller knows of the addresses, asked for in this context.
  CopyRun(const CudaContext& context, const DriverEntry& driver, const CopyHints& hints,
          MemoryMap known);

  // At least one byte; addresses may be of any memory: pinned, pageable, any device's.
  void add(const Copy& copy) {
    ++added_;
    const CopyKind kind = planner_.add(copy);
    if (planner_.list(kind).size() > list_limits_[static_cast<int>(kind)]) go_on(kind);
  }

  // All of such tables that are to do something.
  void add_all(const SwapBlocksBatchParams& tables);

  // Issues what is left and notes the paths (kvops.swap.last_path). Must be called, once.
  void finish();

 private:
  void go_on(CopyKind kind);
  size_t issue(CopyKind kind, std::span<const Copy> copies, bool is_all);
  unsigned path_for(CopyKind kind, std::span<const Copy> copies, bool is_all);
  bool by_2d(CopyKind kind, std::span<const Copy> rows);
  void by_kernel(CopyKind kind, std::span<const Copy> copies);
  void by_batch_or_singly(std::span<const Copy> copies);
  size_t by_batch(std::span<const Copy> copies);
  void singly(std::span<const Copy> copies);
  void wait_for_pageable_targets();

  const CudaContext& context_;
  const DriverEntry& driver_;
  CopyHints hints_;
  SwapWishes wishes_;
  PathChoice choice_;
  MemoryMap memory_;
  CopyPlanner planner_;
  int64_t added_ = 0;
  size_t list_limits_[kNumCopyKinds];     // with more copies in a list some of them can go out
  unsigned paths_[kNumCopyKinds] = {};    // once decided
  size_t lead_left_[kNumCopyKinds] = {};  // of kLedBatch: copies that are still for the kernel
  bool lead_is_short_[kNumCopyKinds] = {};
  std::vector<Copy> batch_;  // left to the driver, for the end
  std::vector<Copy> single_;
  unsigned used_ = 0;
  bool kernel_is_last_ = false;  // on the stream, of this call
};

}  // namespace kvops::cuda
