// Copies between host memory ranges. See host_copies.h.
// Large lists run in parallel, split by bytes, if no copy writes what another one touches;
// otherwise, and when small, in order in the calling thread.
#include "swap/cpu/host_copies.h"

#include <algorithm>
#include <cstring>

#include "common/parallel.h"

namespace kvops::cpu {
namespace {

// Below this a second thread costs more than it gains.
constexpr int64_t kBytesPerTask = 512 << 10;

// Addresses as numbers: pointers into different allocations have no order in C++.
struct Range {
  uintptr_t begin;
  uintptr_t end;
};

Range range_of(const void* start, int64_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(start);
  return {begin, begin + static_cast<uintptr_t>(bytes)};
}

Range source_range(const HostCopy& copy) { return range_of(copy.src, copy.bytes); }
Range target_range(const HostCopy& copy) { return range_of(copy.dst, copy.bytes); }

bool begins_earlier(const Range& a, const Range& b) { return a.begin < b.begin; }

// The targets in order of address; empty if two of them overlap.
std::vector<Range> disjoint_targets(const std::vector<HostCopy>& copies) {
  std::vector<Range> targets(copies.size());
  std::transform(copies.begin(), copies.end(), targets.begin(), target_range);
  if (!std::is_sorted(targets.begin(), targets.end(), begins_earlier)) {
    std::sort(targets.begin(), targets.end(), begins_earlier);
  }
  for (size_t i = 1; i < targets.size(); ++i) {
    if (targets[i].begin < targets[i - 1].end) return {};
  }
  return targets;
}

// Whether every order of the copies, and of their bytes, gives the same result.
bool order_is_free(const std::vector<HostCopy>& copies) {
  const std::vector<Range> targets = disjoint_targets(copies);
  if (targets.empty()) return false;
  return std::none_of(copies.begin(), copies.end(), [&targets](const HostCopy& copy) {
    const Range source = source_range(copy);
    if (source.end <= targets.front().begin || source.begin >= targets.back().end) return false;
    const auto ends_before = [](const Range& target, uintptr_t at) { return target.end <= at; };
    const auto target = std::lower_bound(targets.begin(), targets.end(), source.begin, ends_before);
    return target != targets.end() && target->begin < source.end;
  });
}

void run_in_order(const std::vector<HostCopy>& copies) {
  for (const HostCopy& copy : copies) {
    std::memmove(copy.dst, copy.src, static_cast<size_t>(copy.bytes));
  }
}

// Each task takes a stretch of all bytes, wherever copies begin and end: sizes may differ.
void run_in_parallel(const std::vector<HostCopy>& copies, const std::vector<int64_t>& ends) {
  parallel_for(ends.back(), kBytesPerTask, [&](int64_t begin, int64_t end) noexcept {
    size_t i = std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin();
    while (begin < end) {
      const HostCopy& copy = copies[i];
      const int64_t done = begin - (ends[i] - copy.bytes);
      const int64_t bytes = std::min(ends[i], end) - begin;
      std::memcpy(copy.dst + done, copy.src + done, static_cast<size_t>(bytes));
      begin += bytes;
      ++i;
    }
  });
}

}  // namespace

void run_host_copies(const std::vector<HostCopy>& copies) {
  std::vector<int64_t> ends(copies.size());  // bytes of the copies up to and including each
  int64_t total_bytes = 0;
  for (size_t i = 0; i < copies.size(); ++i) ends[i] = total_bytes += copies[i].bytes;
  if (total_bytes > kBytesPerTask && num_threads() > 1 && order_is_free(copies)) {
    run_in_parallel(copies, ends);
  } else {
    run_in_order(copies);
  }
}

}  // namespace kvops::cpu
