// Device side of the skip record: called by a kernel that has just decided to skip an index.
// Call it from one thread per index. Costs nothing where nothing is skipped.
#pragma once

#include <cstdint>

#include "common/skipped.h"

namespace kvops::kernels {

static __device__ __noinline__ void report_skipped(const SkipReport& report, int64_t index,
                                                   int64_t value) {
  SkipRecord* record = report.record;
  atomicAdd(&record->count, 1ull);
  if (atomicCAS(&record->state, 0u, 1u) != 0u) return;
  record->op = report.op;
  record->argument = report.argument;
  record->index = index;
  record->value = value;
  __threadfence();
  atomicExch(&record->state, 2u);
}

}  // namespace kvops::kernels
