// Sorts, splits and joins the copies of a call. See copy_plan.h.
// Only neighbours in the caller's order are joined: block managers hand out runs in order.
#include "swap/cuda/copy_plan.h"

#include <algorithm>

namespace kvops::cuda {
namespace {

bool continues(const Copy& last, const Copy& next) {
  return last.src + last.bytes == next.src && last.dst + last.bytes == next.dst;
}

bool fits(uintptr_t address, size_t bytes, uintptr_t limit) {
  return address <= limit && bytes <= limit - address;
}

}  // namespace

void CopyPlanner::add(const Copy& copy) {
  Copy rest = copy;
  while (rest.bytes > 0) {
    const End src = look(rest.src, rest.bytes);
    const End dst = look(rest.dst, rest.bytes);
    const size_t bytes = std::min(src.bytes, dst.bytes);
    std::vector<Copy>& list = list_for(src, dst);
    const bool grows = last_list_ == &list && continues(list.back(), rest) &&
                       fits(rest.src, bytes, src_limit_) && fits(rest.dst, bytes, dst_limit_);
    if (grows) {
      list.back().bytes += bytes;
    } else {
      list.push_back({rest.src, rest.dst, bytes, rest.index});
      last_list_ = &list;
      src_limit_ = src.range_end;
      dst_limit_ = dst.range_end;
    }
    rest.src += bytes;
    rest.dst += bytes;
    rest.bytes -= bytes;
  }
}

CopyPlanner::End CopyPlanner::look(uintptr_t address, size_t bytes) {
  const MemoryRange range = memory_.at(address);
  if (range.place == Place::kPageable) return look_at_pageable(address, bytes);
  if (range.place == Place::kDevice) return look_at_device(range, address, bytes);
  // The driver refuses copies that run from one registration into another.
  const bool splits = range.place == Place::kPinned && range.end - range.begin > 1;
  return {.place = range.place,
          .for_kernel = range.kernel_reachable,
          .bytes = splits ? std::min(bytes, range.end - address) : bytes,
          .range_end = range.end};
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
  return {.place = Place::kDevice,
          .for_kernel = for_kernel,
          .bytes = bytes,
          .range_end = for_kernel ? range.end : first.end};
}

// Nothing tells how far pageable memory reaches. A registration that the copy runs into is found;
// one that lies inside of it whole is not: the driver then copies it like the pageable rest.
CopyPlanner::End CopyPlanner::look_at_pageable(uintptr_t address, size_t bytes) {
  const MemoryRange last = memory_.at(address + bytes - 1);
  const bool runs_into = last.place != Place::kPageable && last.begin > address;
  return {.place = Place::kPageable,
          .for_kernel = false,
          .bytes = runs_into ? last.begin - address : bytes,
          .range_end = address};  // never joined: what follows was not looked at
}

std::vector<Copy>& CopyPlanner::list_for(const End& src, const End& dst) {
  const auto needs_driver_alone = [](Place place) {
    return place == Place::kPageable || place == Place::kManaged;
  };
  if (needs_driver_alone(src.place) || needs_driver_alone(dst.place)) return plan_.singly;
  const int device_ends = (src.place == Place::kDevice) + (dst.place == Place::kDevice);
  if (!src.for_kernel || !dst.for_kernel || device_ends == 0) return plan_.by_driver;
  return device_ends == 2 ? plan_.on_device : plan_.over_link;
}

}  // namespace kvops::cuda
