// Copies between host memory ranges, in parallel where that cannot be seen.
// Used by the thin CPU operators of this folder.
// The result is that of memmove for one copy after the other, in order, with any thread count.
#pragma once

#include <cstdint>
#include <vector>

namespace kvops::cpu {

struct HostCopy {
  const char* src;
  char* dst;
  int64_t bytes;
};

void run_host_copies(const std::vector<HostCopy>& copies);

}  // namespace kvops::cpu
