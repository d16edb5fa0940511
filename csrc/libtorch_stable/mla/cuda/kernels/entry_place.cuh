// Where a token's MLA entry lies in the cache. Used by every kernel that writes entries.
// A slot out of range has no entry; -1 is padding, any other one is reported.
#pragma once

#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/indices.cuh"
#include "common/cuda/slots.cuh"
#include "mla/params.h"

namespace kvops::kernels {

template <class Indices>
struct EntryTable {
  Slots<Indices> slots;
  char* kv_cache;
  SlotPlaces<Indices> places;

  EntryTable(const MlaEntriesParams& p, const SkipReport& report)
      : slots(p, report),
        kv_cache(p.kv_cache),
        places(p.block_stride_bytes, p.entry_stride_bytes, p.block_size) {}

#if defined(__CUDACC__)
  // As the rows of concat_rows.cuh: one row per token, and its slot tells where it goes.
  using Row = typename Indices::Count;
  using Found = int64_t;
  __device__ __forceinline__ Divided<Row> split(Row token) const { return {token, 0}; }
  __device__ __forceinline__ int64_t lookup(Row token, Row, Row) const {
    return slots.of_tokens[token];
  }
  __device__ __forceinline__ bool has(int64_t slot) const { return slots.is_written(slot); }

  // Of a slot that there is.
  __device__ __forceinline__ char* place(int64_t slot) const {
    return kv_cache + places.place(slots, slot);
  }
  __device__ __forceinline__ void report_if_skipped(Row token, int64_t slot) const {
    if (!has(slot)) slots.report(token, slot);
  }
#endif
};

// Whether EntryTable<NarrowIndices> can be.
inline bool can_count_entries(const MlaEntriesParams& p) {
  return NarrowIndices::can_count(p.tokens, p.num_slots) &&
         NarrowIndices::can_stride(p.block_stride_bytes, p.entry_stride_bytes, p.block_size);
}

}  // namespace kvops::kernels
