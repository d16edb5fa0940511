// Sorts, splits and joins the copies of a call. See copy_plan.h.
// Only neighbours in the caller's order are joined: block managers hand out runs in order.
#include "swap/cuda/copy_plan.h"

#include <algorithm>

namespace kvops::cuda {
namespace {

CopyKind kind_of(Place src, Place dst, bool for_kernel) {
  const auto needs_driver_alone = [](Place place) {
    return place == Place::kPageable || place == Place::kManaged;
  };
  if (needs_driver_alone(src) || needs_driver_alone(dst)) return CopyKind::kSingly;
  const bool from_device = src == Place::kDevice;
  const bool to_device = dst == Place::kDevice;
  if (!for_kernel || (!from_device && !to_device)) return CopyKind::kByDriver;
  if (from_device && to_device) return CopyKind::kWithinDevice;
  return to_device ? CopyKind::kToDevice : CopyKind::kToHost;
}

}  // namespace

// With nothing but local variables, and no Copy that is written and read again at once: that alone
// took half of the time.
int64_t CopyPlanner::add_alike(const SwapBlocksBatchParams& tables, int64_t from, size_t most) {
  constexpr size_t kAtOnce = 64;
  Copy added[kAtOnce];
  const size_t room = std::min(most, kAtOnce);
  size_t count = 0;
  std::vector<Copy>& copies = list(last_kind_);
  Copy* last = may_grow_ && !copies.empty() ? &copies.back() : nullptr;
  // Where the next one would continue it; no copy is at address 0.
  uintptr_t next_src = last != nullptr ? last->src + last->bytes : 0;
  uintptr_t next_dst = last != nullptr ? last->dst + last->bytes : 0;
  const Span in_src = last_src_;
  const Span in_dst = last_dst_;
  int64_t i = from;
  for (; i < tables.num_copies; ++i) {
    const auto src = static_cast<uintptr_t>(tables.src_ptrs[i]);
    const auto dst = static_cast<uintptr_t>(tables.dst_ptrs[i]);
    const auto bytes = static_cast<size_t>(tables.sizes[i]);
    if (bytes == 0 || src == dst) continue;
    if (!in_src.holds(src, bytes) || !in_dst.holds(dst, bytes)) break;
    if (src == next_src && dst == next_dst) {
      last->bytes += bytes;
    } else if (count < room) {
      last = &added[count++];
      *last = {.src = src, .dst = dst, .bytes = bytes, .index = i};
    } else {
      break;
    }
    next_src = src + bytes;
    next_dst = dst + bytes;
  }
  may_grow_ = may_grow_ || count > 0;
  copies.insert(copies.end(), added, added + count);
  return i;
}

CopyKind CopyPlanner::add_to_other_memory(const Copy& copy) {
  Copy rest = copy;
  while (rest.bytes > 0) {
    const End src = look(rest.src, rest.bytes);
    const End dst = look(rest.dst, rest.bytes);
    const size_t bytes = std::min(src.bytes, dst.bytes);
    const CopyKind kind = kind_of(src.place, dst.place, src.for_kernel && dst.for_kernel);
    // What was appended before ends in the same memory, or it stays apart.
    const auto same = [](const Span& a, const Span& b) { return a.begin == b.begin && a.end > 0; };
    may_grow_ =
        may_grow_ && kind == last_kind_ && same(src.span, last_src_) && same(dst.span, last_dst_);
    last_kind_ = kind;
    last_src_ = src.span;
    last_dst_ = dst.span;
    append(kind, {rest.src, rest.dst, bytes, rest.index});
    rest.src += bytes;
    rest.dst += bytes;
    rest.bytes -= bytes;
  }
  return last_kind_;
}

CopyPlanner::End CopyPlanner::look(uintptr_t address, size_t bytes) {
  const MemoryRange range = memory_.at(address);
  if (range.place == Place::kPageable) return look_at_pageable(address, bytes);
  if (range.place == Place::kDevice) return look_at_device(range, address, bytes);
  // Where the driver knows no bounds nothing is said of what follows.
  const bool has_bounds = range.end - range.begin > 1;
  // The driver refuses copies that run from one registration into another.
  const bool splits = range.place == Place::kPinned && has_bounds;
  return {.place = range.place,
          .for_kernel = range.kernel_reachable,
          .bytes = splits ? std::min(bytes, range.end - address) : bytes,
          .span = has_bounds ? Span{range.begin, range.end} : Span{}};
}

// Device memory may be mapped in several pieces; the copy stays one, whatever the pieces are.
CopyPlanner::End CopyPlanner::look_at_device(const MemoryRange& first, uintptr_t address,
                                             size_t bytes) {
  MemoryRange range = first;
  bool for_kernel = range.kernel_reachable && range.device == device_;
  while (for_kernel && range.end - address < bytes) {
    range = memory_.at(range.end);
    for_kernel = range.place == Place::kDevice && range.kernel_reachable && range.device == device_;
  }
  const bool has_bounds = first.end - first.begin > 1;
  return {.place = Place::kDevice,
          .for_kernel = for_kernel,
          .bytes = bytes,
          .span = has_bounds ? Span{first.begin, for_kernel ? range.end : first.end} : Span{}};
}

// Nothing tells how far pageable memory reaches. A registration that the copy runs into is found;
// one that lies inside of it whole is not: the driver then copies it like the pageable rest.
CopyPlanner::End CopyPlanner::look_at_pageable(uintptr_t address, size_t bytes) {
  const MemoryRange last = memory_.at(address + bytes - 1);
  const bool runs_into = last.place != Place::kPageable && last.begin > address;
  return {.place = Place::kPageable,
          .for_kernel = false,
          .bytes = runs_into ? last.begin - address : bytes,
          .span = {}};  // never joined: what follows was not looked at
}

}  // namespace kvops::cuda
