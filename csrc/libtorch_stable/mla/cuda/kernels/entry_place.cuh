// Where a token's MLA entry lies in the cache. Used by every kernel that writes entries.
// A slot out of range has no entry; -1 is padding, any other one is reported.
#pragma once

#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/skipped.cuh"
#include "mla/params.h"

namespace kvops::kernels {

struct SlotTable {
  const int64_t* slots;  // [tokens]
  int64_t num_slots;
  Divisor block_size;
  SkipReport report;

  SlotTable(const int64_t* slots, int64_t num_slots, int64_t block_size, const SkipReport& report)
      : slots(slots), num_slots(num_slots), block_size(block_size, num_slots), report(report) {}

#if defined(__CUDACC__)
  __device__ bool has(int64_t slot) const { return slot >= 0 && slot < num_slots; }

  // To be called for a slot that the table does not have, by one thread per token.
  __device__ void report_skip(int64_t token, int64_t slot) const {
    if (slot != -1) report_skipped(report, token, slot);
  }
#endif
};

struct EntryTable {
  SlotTable table;
  char* kv_cache;
  int64_t block_stride_bytes;
  int64_t entry_stride_bytes;
  bool is_dense;  // entries are equally far apart across blocks, too

  EntryTable(const MlaEntriesParams& p, const SkipReport& report)
      : table(p.slot_mapping, p.num_slots, p.block_size, report),
        kv_cache(p.kv_cache),
        block_stride_bytes(p.block_stride_bytes),
        entry_stride_bytes(p.entry_stride_bytes),
        is_dense(p.block_stride_bytes == p.block_size * p.entry_stride_bytes) {}

#if defined(__CUDACC__)
  // As the rows of concat_rows.cuh: one row per token, and its slot tells where it goes.
  __device__ Divided<int64_t> split(int64_t token) const { return {token, 0}; }
  using Found = int64_t;
  __device__ int64_t lookup(int64_t token, int64_t, int64_t) const { return table.slots[token]; }

  // Null if the slot is out of range.
  __device__ char* place(int64_t slot) const {
    if (!table.has(slot)) return nullptr;
    if (is_dense) return kv_cache + slot * entry_stride_bytes;
    const auto [block, offset] = table.block_size.divide(slot);
    return kv_cache + block * block_stride_bytes + offset * entry_stride_bytes;
  }
  __device__ void report_if_skipped(int64_t token, int64_t slot) const {
    if (!table.has(slot)) table.report_skip(token, slot);
  }
#endif
};

}  // namespace kvops::kernels
