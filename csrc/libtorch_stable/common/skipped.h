// What a kernel leaves behind when it skips an index that is out of range: one record per device.
// Written by report_skipped (common/cuda/skipped.cuh), read by kvops.skipped().
// The first skip since the last clear stays; later ones are only counted.
#pragma once

#include <cstdint>

namespace kvops {

// Names are addresses of string literals in host memory: kernels pass them on and never read them.
struct SkipRecord {
  unsigned int state;        // 0: nothing yet, 1: being written, 2: complete
  unsigned long long count;  // how often something was skipped
  const char* op;
  const char* argument;
  int64_t index;  // flat, in the argument: row * columns + column
  int64_t value;
};

// A kernel's parameter: where and as what to report values of one argument.
struct SkipReport {
  SkipRecord* record;  // in device memory
  const char* op;
  const char* argument;
};

}  // namespace kvops
