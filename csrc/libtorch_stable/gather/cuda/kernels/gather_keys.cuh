// The gather of keys and scales of few requests. A warp takes 32 rows: each lane finds the entry of
// one and copies its scales, and all copy the keys, 8 units of a lane at once, all loads before the
// first store. Most warps of a call are on the GPU at once, so it is instructions that take time:
// keys are as many units as lanes can be divided by, numbers have 32 bits, and a warp whose rows
// all have entries does not ask for each. Launched by cp_gather_indexer_k_quant_cache where
// can_gather_keys.
#pragma once

#include <bit>
#include <cstdint>

#include "common/cuda/launch.cuh"
#include "gather/cuda/kernels/copy_rows.cuh"
#include "gather/cuda/kernels/lane_requests.cuh"

namespace kvops::kernels {

inline constexpr int kKeysThreads = 128;   // a row each
inline constexpr uint32_t kKeysUnits = 8;  // of a lane at once
inline constexpr int kKeyUnitBytes = 16;
inline constexpr int kScaleUnitBytes = 4;

// Strides are in units.
struct KeysShape {
  uint32_t columns;      // units of a row's keys: 8, 16 or 32
  uint32_t column_bits;  // columns is 1 << column_bits
  uint32_t row_bytes;    // from a row of keys to the next
  uint32_t block_stride;
  uint32_t entry_stride;
  uint32_t scale_columns;
  uint32_t scale_block_stride;
  uint32_t scale_entry_stride;
};

inline constexpr uint32_t kNoKeys = ~0u;  // instead of a unit's number: the row has no entry

// Whether 32 bits hold the number of every unit from the first entry on, and the bytes of 32 rows.
inline bool units_are_narrow(const GatherCall& call, const EntryRows& rows, int unit_bytes) {
  const int64_t end = (int64_t{call.tables.num_blocks} - 1) * rows.block_stride_bytes +
                      (call.block_size - 1) * rows.entry_stride_bytes + rows.row_bytes;
  return end / unit_bytes < int64_t{kNoKeys} && rows.row_stride_bytes <= INT32_MAX / 32;
}

// For keys of 128, 256 or 512 bytes.
inline bool can_gather_keys(const GatherCall& call, const EntryRows& keys,
                            const EntryRows& scales) {
  const int64_t columns = keys.row_bytes / kKeyUnitBytes;
  return lanes_suffice(call.tables) && common_unit_bytes(keys) == kKeyUnitBytes &&
         common_unit_bytes(scales) >= kScaleUnitBytes &&
         (columns == 8 || columns == 16 || columns == 32) &&
         units_are_narrow(call, keys, kKeyUnitBytes) &&
         units_are_narrow(call, scales, kScaleUnitBytes);
}

template <class Unit>
__device__ __forceinline__ const Unit* unit_at(const char* first, uint32_t number) {
  const Unit* const unit = reinterpret_cast<const Unit*>(first) + number;
  __builtin_assume(__isGlobal(unit));
  return unit;
}

// The keys of 32 rows from `first_row` on; those of the lane's row start at the unit `start`.
// kAllFound: it is kNoKeys for none of them.
template <bool kAllFound>
__device__ __forceinline__ void copy_keys(const KeysShape& shape, const EntryRows& keys,
                                          uint32_t first_row, uint32_t start, uint32_t lane) {
  constexpr uint32_t kAtOnce = kAllFound ? kKeysUnits : 1;
  const uint32_t rows_at_once = 32u >> shape.column_bits;
  const uint32_t bytes_at_once = rows_at_once * shape.row_bytes;
  const uint32_t column_byte = (lane & (shape.columns - 1)) * kKeyUnitBytes;
  uint32_t row = lane >> shape.column_bits;
  const char* const from = keys.src + column_byte;
  char* to = keys.dst + uint64_t{first_row + row} * shape.row_bytes + column_byte;
#pragma unroll 1
  for (uint32_t i = 0; i < shape.columns; i += kAtOnce) {
    uint4 units[kAtOnce];
    bool exists = true;
#pragma unroll
    for (uint32_t j = 0; j < kAtOnce; ++j) {
      const uint32_t row_start = __shfl_sync(~0u, start, static_cast<int>(row));
      if (!kAllFound) exists = row_start != kNoKeys;
      if (exists) units[j] = *unit_at<uint4>(from, row_start);
      row += rows_at_once;
    }
#pragma unroll
    for (uint32_t j = 0; j < kAtOnce; ++j) {
      if (exists) store_words(reinterpret_cast<uint4*>(to), units[j]);
      to += bytes_at_once;
    }
  }
}

__global__ void __launch_bounds__(kKeysThreads)
    gather_keys_kernel(const __grid_constant__ GatherTables tables,
                       const __grid_constant__ KeysShape shape,
                       const __grid_constant__ EntryRows keys,
                       const __grid_constant__ EntryRows scales,
                       const __grid_constant__ GatherReports reports) {
  const uint32_t lane = threadIdx.x % 32u;
  const uint32_t first_row = blockIdx.x * kKeysThreads + threadIdx.x / 32u * 32u;
  const LaneStarts own = read_lane_starts<true>(tables, lane);
  prefetch_line(tables, static_cast<int>(threadIdx.x));
  const LaneRow at = neighbour_row(tables, first_row, lane);
  const LanePosition position = find_position(tables, own, at, -1);
  uint32_t block = ~0u;
  if (position.exists) block = static_cast<uint32_t>(read_block(tables, position));
  uint32_t offset =
      static_cast<uint32_t>(tables.block_size.remainder(position.position, position.page));
  bool found = block < static_cast<uint32_t>(tables.num_blocks);
  const bool bad_start = is_bad(tables, own);
  const bool all_found = __all_sync(~0u, found && !bad_start);
  bool sound = true;
  if (__builtin_expect(!all_found, false)) {
    sound = __any_sync(~0u, bad_start) == 0;
    if (!sound && at.exists) {
      // Several requests may claim a row.
      const Entry entry = find_among_unsound(tables, at.row);
      found = entry.block >= 0;
      block = static_cast<uint32_t>(entry.block);
      offset = static_cast<uint32_t>(entry.offset);
    }
  }
  const uint32_t start = block * shape.block_stride + offset * shape.entry_stride;
  const uint32_t* const scale_from = unit_at<uint32_t>(
      scales.src, block * shape.scale_block_stride + offset * shape.scale_entry_stride);
  auto* const scale_to = reinterpret_cast<uint32_t*>(row_address(scales, at.row));
  const uint32_t first_scale = found ? *scale_from : 0;
  if (__builtin_expect(all_found, true)) {
    copy_keys<true>(shape, keys, first_row, start, lane);
  } else {
    copy_keys<false>(shape, keys, first_row, found ? start : kNoKeys, lane);
  }
  if (found) {
    *scale_to = first_scale;
    for (uint32_t i = 1; i < shape.scale_columns; ++i) scale_to[i] = scale_from[i];
  } else if (at.exists) {
    report_lane_row(tables, reports, sound, at.row);
  }
  if (__builtin_expect(!sound && blockIdx.x == 0, false)) report_lane_starts(tables, reports);
}

inline cudaError_t launch_gather_keys(const GatherCall& call, const EntryRows& keys,
                                      const EntryRows& scales) {
  const auto units = [](int64_t bytes, int unit_bytes) {
    return static_cast<uint32_t>(bytes / unit_bytes);
  };
  const uint32_t columns = units(keys.row_bytes, kKeyUnitBytes);
  const KeysShape shape = {
      .columns = columns,
      .column_bits = static_cast<uint32_t>(std::countr_zero(columns)),
      .row_bytes = static_cast<uint32_t>(keys.row_stride_bytes),
      .block_stride = units(keys.block_stride_bytes, kKeyUnitBytes),
      .entry_stride = units(keys.entry_stride_bytes, kKeyUnitBytes),
      .scale_columns = units(scales.row_bytes, kScaleUnitBytes),
      .scale_block_stride = units(scales.block_stride_bytes, kScaleUnitBytes),
      .scale_entry_stride = units(scales.entry_stride_bytes, kScaleUnitBytes),
  };
  const unsigned blocks =
      static_cast<unsigned>((int64_t{call.tables.num_rows} + kKeysThreads - 1) / kKeysThreads);
  return launch_kernel(gather_keys_kernel, blocks, kKeysThreads, call.stream, call.tables, shape,
                       keys, scales, call.reports);
}

}  // namespace kvops::kernels
