// Slots of tokens: which ones are written, and which ones are reported as skipped.
// Used by the kernels of the cache writers.
// Slots are never trusted: a place is made only of one that is_written().
#pragma once

#include <cstdint>

#include "cache/params.h"
#include "common/cuda/divisor.cuh"
#include "common/cuda/skipped.cuh"

namespace kvops::kernels {

struct Slots {
  const int64_t* of_tokens;
  int64_t tokens;
  int64_t end;  // number of slots of the cache
  Divisor block_size;
  SkipReport skipped;

  // Of CacheWriterParams or Nvfp4WriterParams.
  template <class Params>
  Slots(const Params& p, const SkipReport& report)
      : of_tokens(p.slot_mapping),
        tokens(p.tokens),
        end(p.num_slots),
        block_size(p.block_size, p.num_slots),
        skipped(report) {}

#if defined(__CUDACC__)
  __device__ __forceinline__ bool is_written(int64_t slot) const { return slot >= 0 && slot < end; }

  // To be called for a slot that is not written, by one thread per token. -1 is padding.
  __device__ __forceinline__ void report(int64_t token, int64_t slot) const {
    if (slot != -1) report_skipped(skipped, token, slot);
  }
#endif
};

}  // namespace kvops::kernels
