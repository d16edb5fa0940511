// Slots of tokens: which ones are written, and which ones are reported as skipped.
// Used by the writers of caches and MLA entries.
// Slots are never trusted: a place is made only of one that is_written().
#pragma once

#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/indices.cuh"
#include "common/cuda/skipped.cuh"

namespace kvops::kernels {

template <class Indices>
struct Slots {
  using Count = typename Indices::Count;

  const int64_t* of_tokens;
  Count tokens;
  Count end;  // number of slots of the cache
  typename Indices::Division block_size;
  SkipReport skipped;

  // Of the parameters of any of the writers.
  template <class Params>
  Slots(const Params& p, const SkipReport& report)
      : of_tokens(p.slot_mapping),
        tokens(static_cast<Count>(p.tokens)),
        end(static_cast<Count>(p.num_slots)),
        block_size(Indices::division(p.block_size, p.num_slots)),
        skipped(report) {}

#if defined(__CUDACC__)
  __device__ __forceinline__ bool is_written(int64_t slot) const {
    return static_cast<uint64_t>(slot) < static_cast<uint64_t>(end);
  }

  // Block and offset of a slot that is written.
  __device__ __forceinline__ Divided<Count> split(int64_t slot) const {
    return block_size.divide(static_cast<Count>(slot));
  }

  // To be called for a slot that is not written, by one thread per token. -1 is padding.
  __device__ __forceinline__ void report(int64_t token, int64_t slot) const {
    if (slot != -1) report_skipped(skipped, token, slot);
  }
#endif
};

// Where slots lie that are equally far apart within blocks, and blocks in the cache. Adding what is
// left over at the end of every block takes fewer instructions than a slot's offset in its block.
// Strides are in bytes.
template <class Indices>
struct SlotPlaces {
  typename Indices::Stride slot_stride;
  typename Indices::Gap gap;  // behind the slots of a block

  SlotPlaces(int64_t block_stride, int64_t slot_stride, int64_t block_size)
      : slot_stride(static_cast<typename Indices::Stride>(slot_stride)),
        gap(static_cast<typename Indices::Gap>(block_stride - block_size * slot_stride)) {}

#if defined(__CUDACC__)
  // Of a slot that is written.
  __device__ __forceinline__ int64_t place(const Slots<Indices>& slots, int64_t slot) const {
    const auto index = static_cast<typename Indices::Count>(slot);
    const auto block = static_cast<typename Indices::Gap>(slots.block_size.quotient(index));
    return static_cast<int64_t>(static_cast<uint64_t>(index) * slot_stride) + int64_t{block} * gap;
  }
#endif
};

}  // namespace kvops::kernels
