// Where a token's MLA entry lies in the cache. Used by every kernel that writes entries.
// A slot out of range has no entry; -1 is padding, any other one is reported.
#pragma once

#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/indices.cuh"
#include "common/cuda/skipped.cuh"
#include "mla/params.h"

namespace kvops::kernels {

template <class Indices>
struct SlotTable {
  using Count = typename Indices::Count;

  const int64_t* slots;  // [tokens]
  Count tokens;
  Count num_slots;
  typename Indices::Division block_size;
  SkipReport report;

  // Of MlaEntriesParams or IndexerQuantParams.
  template <class Params>
  SlotTable(const Params& p, const SkipReport& report)
      : slots(p.slot_mapping),
        tokens(static_cast<Count>(p.tokens)),
        num_slots(static_cast<Count>(p.num_slots)),
        block_size(Indices::division(p.block_size, p.num_slots)),
        report(report) {}

#if defined(__CUDACC__)
  __device__ __forceinline__ bool has(int64_t slot) const {
    return static_cast<uint64_t>(slot) < static_cast<uint64_t>(num_slots);
  }

  // Block and offset of a slot that the table has.
  __device__ __forceinline__ Divided<Count> split(int64_t slot) const {
    return block_size.divide(static_cast<Count>(slot));
  }

  // To be called for a slot that the table does not have, by one thread per token.
  __device__ __forceinline__ void report_skip(int64_t token, int64_t slot) const {
    if (slot != -1) report_skipped(report, token, slot);
  }
#endif
};

template <class Indices>
struct EntryTable {
  SlotTable<Indices> table;
  char* kv_cache;
  int64_t block_stride_bytes;
  int64_t entry_stride_bytes;

  EntryTable(const MlaEntriesParams& p, const SkipReport& report)
      : table(p, report),
        kv_cache(p.kv_cache),
        block_stride_bytes(p.block_stride_bytes),
        entry_stride_bytes(p.entry_stride_bytes) {}

#if defined(__CUDACC__)
  // As the rows of concat_rows.cuh: one row per token, and its slot tells where it goes.
  using Row = typename Indices::Count;
  using Found = int64_t;
  __device__ __forceinline__ Divided<Row> split(Row token) const { return {token, 0}; }
  __device__ __forceinline__ int64_t lookup(Row token, Row, Row) const {
    return table.slots[token];
  }
  __device__ __forceinline__ bool has(int64_t slot) const { return table.has(slot); }

  // Of a slot that there is.
  __device__ __forceinline__ char* place(int64_t slot) const {
    const auto [block, offset] = table.split(slot);
    return kv_cache + block * block_stride_bytes + offset * entry_stride_bytes;
  }
  __device__ __forceinline__ void report_if_skipped(Row token, int64_t slot) const {
    if (!has(slot)) table.report_skip(token, slot);
  }
#endif
};

}  // namespace kvops::kernels
