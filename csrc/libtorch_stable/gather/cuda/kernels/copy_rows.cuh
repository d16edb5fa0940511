// The mover that copies entries as they are.
// Launched through launch_gather by cp_gather_cache and gather_and_maybe_dequant_cache.
// Unit: the widest of 16, 4, 2 and 1 bytes that divides every pointer, stride and width.
#pragma once

#include "common/cuda/divisor.cuh"
#include "gather/cuda/kernels/gather.cuh"

namespace kvops::kernels {

__device__ inline const char* entry_address(const EntryRows& r, const Entry& entry) {
  return r.src + entry.block * r.block_stride_bytes + entry.offset * r.entry_stride_bytes;
}

template <class Unit>
__device__ void copy_rows(const EntryRows& r, const Divisor& row_units, const Entry* entries,
                          int64_t first_row, int rows) {
  const auto at = [&](int64_t unit, int64_t& row) {
    row = row_units.quotient(unit);
    return row_units.remainder(unit, row) * static_cast<int64_t>(sizeof(Unit));
  };
  for_units<4, Unit>(
      rows * (r.row_bytes / static_cast<int64_t>(sizeof(Unit))),
      [&](int64_t unit) {
        int64_t row = 0;
        const int64_t byte = at(unit, row);
        if (entries[row].block < 0) return Unit{};
        return *reinterpret_cast<const Unit*>(entry_address(r, entries[row]) + byte);
      },
      [&](int64_t unit, const Unit& value) {
        int64_t row = 0;
        const int64_t byte = at(unit, row);
        if (entries[row].block < 0) return;
        *reinterpret_cast<Unit*>(r.dst + (first_row + row) * r.row_stride_bytes + byte) = value;
      });
}

inline int common_unit_bytes(const EntryRows& r) {
  const uint64_t all = reinterpret_cast<uint64_t>(r.src) | reinterpret_cast<uint64_t>(r.dst) |
                       static_cast<uint64_t>(r.block_stride_bytes | r.entry_stride_bytes |
                                             r.row_stride_bytes | r.row_bytes);
  for (int unit : {16, 4, 2}) {
    if (all % unit == 0) return unit;
  }
  return 1;
}

template <class Unit>
struct CopyRows {
  EntryRows rows;
  Divisor row_units;

  explicit CopyRows(const EntryRows& r)
      : rows(r),
        row_units(r.row_bytes / static_cast<int64_t>(sizeof(Unit)), kMaxChunkRows * r.row_bytes) {}

  __device__ void move(const Entry* entries, int64_t first_row, int count) const {
    copy_rows<Unit>(rows, row_units, entries, first_row, count);
  }
};

inline cudaError_t launch_copy_rows(const GatherTables& tables, const EntryRows& rows,
                                    int multiprocessors, cudaStream_t stream) {
  const auto launch = [&](const auto& mover) {
    return launch_gather(tables, mover, rows.row_bytes, multiprocessors, stream);
  };
  switch (common_unit_bytes(rows)) {
    case 16:
      return launch(CopyRows<uint4>(rows));
    case 4:
      return launch(CopyRows<uint32_t>(rows));
    case 2:
      return launch(CopyRows<uint16_t>(rows));
    default:
      return launch(CopyRows<uint8_t>(rows));
  }
}

}  // namespace kvops::kernels
