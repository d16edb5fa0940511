// The copies of one call, sorted by what can carry them out; adjacent ones are one.
// Built by the swaps on CUDA; torch-free and runtime-free, so that tests can build plans anywhere.
// Copies of a plan may run in any order and at the same time.
#pragma once

#include <cstdint>
#include <vector>

#include "swap/cuda/copy.h"
#include "swap/cuda/memory_map.h"

namespace kvops::cuda {

struct CopyPlan {
  std::vector<Copy> on_device;  // within this device's memory: for a kernel, or any other path
  std::vector<Copy> over_link;  // this device and pinned host memory: likewise
  std::vector<Copy> by_driver;  // memory that our kernels cannot reach, a peer's: batch or single
  std::vector<Copy> singly;     // pageable or managed memory: single copies
};

class CopyPlanner {
 public:
  CopyPlanner(MemoryMap& memory, int device) : memory_(memory), device_(device) {}

  // Adds a copy of at least one byte; split where a registration of host memory ends inside it.
  void add(const Copy& copy);

  CopyPlan take() { return std::move(plan_); }

 private:
  // What one end of a copy is, for its first `bytes` bytes.
  struct End {
    Place place;
    bool for_kernel;
    size_t bytes;
    uintptr_t range_end;  // up to where a neighbour belongs to the same memory
  };

  End look(uintptr_t address, size_t bytes);
  End look_at_device(const MemoryRange& first, uintptr_t address, size_t bytes);
  End look_at_pageable(uintptr_t address, size_t bytes);
  std::vector<Copy>& list_for(const End& src, const End& dst);

  MemoryMap& memory_;
  int device_;
  CopyPlan plan_;
  // The list that the last copy went to, and how far its last entry may grow.
  std::vector<Copy>* last_list_ = nullptr;
  uintptr_t src_limit_ = 0;
  uintptr_t dst_limit_ = 0;
};

}  // namespace kvops::cuda
