// The copies of one call, sorted by what can carry them out; adjacent ones are one.
// Filled by CopyRun, which takes copies out again while more are added; torch-free and
// runtime-free, so that tests can make plans anywhere. Copies of a plan may run in any order and at
// the same time.
#pragma once

#include <cstdint>
#include <vector>

#include "swap/cuda/copy.h"
#include "swap/cuda/memory_map.h"
#include "swap/params.h"

namespace kvops::cuda {

enum class CopyKind : uint8_t {
  kWithinDevice,  // this device's memory: for a kernel, or any other path
  kToDevice,      // from pinned host memory to this device: likewise
  kToHost,        // and back: likewise
  kByDriver,      // memory that our kernels cannot reach, a peer's: batch or single
  kSingly,        // pageable or managed memory: single copies
};
inline constexpr int kNumCopyKinds = 5;

class CopyPlanner {
 public:
  CopyPlanner(MemoryMap& memory, int device) : memory_(memory), device_(device) {}

  // Adds a copy of at least one byte; split where a registration of host memory ends inside it.
  // Returns where its end went.
  CopyKind add(const Copy& copy) {
    if (last_src_.holds(copy.src, copy.bytes) && last_dst_.holds(copy.dst, copy.bytes)) {
      append(last_kind_, copy);
      return last_kind_;
    }
    return add_to_other_memory(copy);
  }

  // Adds entries of the tables from `from` on: those that are in the memory of what was added last,
  // with `most` new ones in its list, or fewer. Returns the first that has not been added. Twice
  // as fast as one by one.
  int64_t add_alike(const SwapBlocksBatchParams& tables, int64_t from, size_t most);

  // Where the last one's end went.
  CopyKind last_kind() const { return last_kind_; }

  // The last entry may still grow, unless all copies have been added.
  std::vector<Copy>& list(CopyKind kind) { return lists_[static_cast<int>(kind)]; }

 private:
  // Addresses in one or more allocations of one kind, in which neighbours belong together.
  struct Span {
    uintptr_t begin = 0;
    uintptr_t end = 0;

    bool holds(uintptr_t address, size_t bytes) const {
      return begin <= address && address < end && bytes <= end - address;
    }
  };

  // What one end of a copy is, for its first `bytes` bytes.
  struct End {
    Place place;
    bool for_kernel;
    size_t bytes;
    Span span;
  };

  CopyKind add_to_other_memory(const Copy& copy);
  // Both ends are in last_src_ and last_dst_.
  void append(CopyKind kind, const Copy& copy) {
    std::vector<Copy>& copies = list(kind);
    const bool continues = may_grow_ && !copies.empty() &&
                           copies.back().src + copies.back().bytes == copy.src &&
                           copies.back().dst + copies.back().bytes == copy.dst;
    if (continues) {
      copies.back().bytes += copy.bytes;
    } else {
      if (copies.capacity() == 0) copies.reserve(kRoom);
      copies.push_back(copy);
    }
    may_grow_ = true;
  }

  End look(uintptr_t address, size_t bytes);
  End look_at_device(const MemoryRange& first, uintptr_t address, size_t bytes);
  End look_at_pageable(uintptr_t address, size_t bytes);

  // Lists are emptied from time to time, as a rule before they grow beyond this.
  static constexpr size_t kRoom = 1280;

  MemoryMap& memory_;
  int device_;
  std::vector<Copy> lists_[kNumCopyKinds];
  // Where the last copy went, and the memory that its ends are in. Its entry may grow there.
  CopyKind last_kind_ = CopyKind::kSingly;
  Span last_src_;
  Span last_dst_;
  bool may_grow_ = false;
};

}  // namespace kvops::cuda
