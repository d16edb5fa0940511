// Rows of two parts side by side, out = [first | second], each unit converted on its way.
// Used by concat_mla_q and concat_and_cache_mla. A block takes neighbouring rows, or neighbouring
// units wherever rows end, so its loads and stores are as dense as those of a plain copy, and each
// thread has several loads under way.
// On entry every pointer, stride and width must be a multiple of the unit.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/fp8_quotient.cuh"
#include "common/cuda/launch.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

// Where rows (outer, inner) come from.
struct RowPart {
  const char* base;
  int64_t outer_stride_bytes;
  int64_t inner_stride_bytes;
  int64_t units;  // of a row
};

// ---- what happens to a unit

template <class Unit>
struct CopyUnit {
  using In = Unit;
  using Out = Unit;
  __device__ explicit CopyUnit(float) {}
  __device__ Out operator()(In in) const { return in; }
};

template <class T, class Fp8, int kCount>
struct QuantizeUnit {
  using In = Packed<T, kCount>;
  using Out = Packed<Fp8, kCount>;
  __device__ explicit QuantizeUnit(float scale) : quotient(scale) {}
  __device__ Out operator()(const In& in) const {
    return quotient.template divide<Fp8, T, kCount>(in);
  }
  Fp8Quotient quotient;
};

// ---- the kernel

// A thread takes the same column of kRowsPerThread rows. Thread blocks are (lanes, slots): lanes
// take a row's columns, or, if these are too many, an equal share of them, and slots take rows.
struct RowTiles {
  RowPart first;
  RowPart second;
  int64_t rows;
  uint32_t row_units;
  uint32_t first_units;
};

inline constexpr uint32_t kMaxRowThreads = 192;
inline constexpr uint32_t kMaxRowShares = 65535;  // blocks of a grid along y
// Rows of a thread: more of them share more of the arithmetic, but then blocks read and write in
// larger steps, which memory likes less.
inline constexpr uint32_t kManyRows = 2;

// Of the template argument Rows, whose indices are of type Row, `split(row)` says which
// (outer, inner) row of the inputs becomes row, `lookup(row, outer, inner)` reads or computes what
// tells where a row goes, `has(found)` whether it goes anywhere, `place(found)` then makes the
// address of it, and `report_if_skipped(row, found)` is called by one thread for each row.
template <uint32_t kRowsPerThread, class Convert, class Rows>
__global__ void __launch_bounds__(kMaxRowThreads)
    concat_rows_kernel(const __grid_constant__ Rows rows, const __grid_constant__ RowTiles tiles,
                       const float* scale_or_null) {
  using In = typename Convert::In;
  using Out = typename Convert::Out;
  using Row = typename Rows::Row;
  // Then blocks are one group of lanes, as many as there are rows.
  constexpr bool kOneRow = kRowsPerThread == 1;
  const uint32_t column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= tiles.row_units) return;
  const Row first_row =
      kOneRow ? Row{blockIdx.x} : Row{blockIdx.x} * (blockDim.y * kRowsPerThread) + threadIdx.y;
  const auto row_of = [&](uint32_t j) { return first_row + j * blockDim.y; };
  const auto has_row = [&](uint32_t j) {
    return kOneRow || row_of(j) < static_cast<Row>(tiles.rows);
  };
  const bool is_first = column < tiles.first_units;
  const RowPart& part = is_first ? tiles.first : tiles.second;
  const uint32_t unit = column - (is_first ? 0 : tiles.first_units);
  const char* from = part.base + uint64_t{unit} * sizeof(In);
  In values[kRowsPerThread];
  typename Rows::Found found[kRowsPerThread];
#pragma unroll
  for (uint32_t j = 0; j < kRowsPerThread; ++j) {
    if (!has_row(j)) continue;
    const auto [outer, inner] = rows.split(row_of(j));
    found[j] = rows.lookup(row_of(j), outer, inner);
    values[j] = *reinterpret_cast<const In*>(from + outer * part.outer_stride_bytes +
                                             inner * part.inner_stride_bytes);
  }
  const Convert convert(scale_or_null != nullptr ? *scale_or_null : 1.0f);
  // Or compilers would not read values before they know that their rows go anywhere.
  __syncwarp();
#pragma unroll
  for (uint32_t j = 0; j < kRowsPerThread; ++j) {
    if (!has_row(j) || !rows.has(found[j])) continue;
    store_words(reinterpret_cast<Out*>(rows.place(found[j])) + column, convert(values[j]));
  }
  if (column != 0) return;
  // Last, when no call can take registers from what is still to be stored.
#pragma unroll
  for (uint32_t j = 0; j < kRowsPerThread; ++j) {
    if (has_row(j)) rows.report_if_skipped(row_of(j), found[j]);
  }
}

// Units of rows as if these were one piece, of which a thread takes kUnitsPerThread.
struct RowUnits {
  const char* first;
  const char* second;  // where a row of as many units as both parts have would begin
  int64_t first_stride_bytes;
  int64_t second_stride_bytes;
  uint32_t units;
  uint32_t first_units;  // of a row
  NarrowDivisor row_units;
};

inline constexpr uint32_t kUnitThreads = 64;
inline constexpr uint32_t kUnitsPerThread = 4;

// Rows as above, whose indices have 32 bits; those of the inputs are the same.
template <class Convert, class Rows>
__global__ void __launch_bounds__(kUnitThreads)
    concat_units_kernel(const __grid_constant__ Rows rows, const __grid_constant__ RowUnits w,
                        const float* scale_or_null) {
  using In = typename Convert::In;
  using Out = typename Convert::Out;
  const uint32_t first = blockIdx.x * (kUnitThreads * kUnitsPerThread) + threadIdx.x;
  In values[kUnitsPerThread];
  typename Rows::Found found[kUnitsPerThread];
  Divided<uint32_t> at[kUnitsPerThread];  // row and column
#pragma unroll
  for (uint32_t j = 0; j < kUnitsPerThread; ++j) {
    if (first + j * kUnitThreads >= w.units) continue;
    at[j] = w.row_units.divide(first + j * kUnitThreads);
    const auto [row, column] = at[j];
    found[j] = rows.lookup(row, row, 0);
    const bool is_first = column < w.first_units;
    const char* from = (is_first ? w.first : w.second) +
                       row * (is_first ? w.first_stride_bytes : w.second_stride_bytes);
    values[j] = *reinterpret_cast<const In*>(from + uint64_t{column} * sizeof(In));
  }
  const Convert convert(scale_or_null != nullptr ? *scale_or_null : 1.0f);
  __syncwarp();
#pragma unroll
  for (uint32_t j = 0; j < kUnitsPerThread; ++j) {
    if (first + j * kUnitThreads >= w.units || !rows.has(found[j])) continue;
    store_words(reinterpret_cast<Out*>(rows.place(found[j])) + at[j].remainder, convert(values[j]));
  }
#pragma unroll
  for (uint32_t j = 0; j < kUnitsPerThread; ++j) {
    if (first + j * kUnitThreads < w.units && at[j].remainder == 0) {
      rows.report_if_skipped(at[j].quotient, found[j]);
    }
  }
}

// Groups of lanes in a block: few threads of a warp should be idle.
inline int row_slots(int lanes) {
  int best = 1;
  const auto idle = [lanes](int slots) { return (32 - lanes * slots % 32) % 32; };
  for (int slots = 1; slots * lanes <= static_cast<int>(kMaxRowThreads); ++slots) {
    if (idle(slots) * best <= idle(best) * slots) best = slots;
  }
  return best;
}

// Few rows should still reach many multiprocessors, which short code reaches sooner.
inline constexpr int64_t kFewRows = 2048;

// Strides and widths of the parts are whole units.
template <class Convert, class Rows>
cudaError_t launch_concat_rows(const Rows& rows, int64_t row_count, const RowPart& first,
                               const RowPart& second, const float* scale, cudaStream_t stream) {
  const int64_t row_units = first.units + second.units;
  if (row_count == 0 || row_units == 0) return cudaSuccess;
  if (row_units > INT32_MAX) return cudaErrorInvalidConfiguration;
  const bool few = row_count <= kFewRows;
  const int64_t shares = (row_units + kMaxRowThreads - 1) / kMaxRowThreads;
  const int lanes = static_cast<int>((row_units + shares - 1) / shares);
  const int slots = few ? 1 : row_slots(lanes);
  const int64_t tile_rows = int64_t{slots} * (few ? 1 : int64_t{kManyRows});
  const int64_t tiles = (row_count + tile_rows - 1) / tile_rows;
  if (tiles > INT32_MAX || shares > kMaxRowShares) return cudaErrorInvalidConfiguration;
  const auto kernel =
      few ? concat_rows_kernel<1, Convert, Rows> : concat_rows_kernel<kManyRows, Convert, Rows>;
  const dim3 blocks(static_cast<unsigned>(tiles), static_cast<unsigned>(shares));
  const dim3 threads(static_cast<unsigned>(lanes), static_cast<unsigned>(slots));
  return launch_kernel(kernel, blocks, threads, stream, rows,
                       RowTiles{.first = first,
                                .second = second,
                                .rows = row_count,
                                .row_units = static_cast<uint32_t>(row_units),
                                .first_units = static_cast<uint32_t>(first.units)},
                       scale);
}

inline bool can_concat_units(int64_t row_count, const RowPart& first, const RowPart& second) {
  const int64_t row_units = first.units + second.units;
  return row_units > 0 && row_units <= NarrowDivisor::kEnd / std::max(row_count, int64_t{1});
}

// Of so many units and rows.
template <class Convert, class Rows>
cudaError_t launch_concat_units(const Rows& rows, int64_t row_count, const RowPart& first,
                                const RowPart& second, const float* scale, cudaStream_t stream) {
  const int64_t row_units = first.units + second.units;
  const int64_t units = row_units * row_count;
  constexpr int64_t kBlockUnits = kUnitThreads * kUnitsPerThread;
  const int64_t blocks = (units + kBlockUnits - 1) / kBlockUnits;
  const int64_t first_bytes = first.units * static_cast<int64_t>(sizeof(typename Convert::In));
  return launch_kernel(concat_units_kernel<Convert, Rows>, static_cast<unsigned>(blocks),
                       kUnitThreads, stream, rows,
                       RowUnits{.first = first.base,
                                .second = second.base - first_bytes,
                                .first_stride_bytes = first.outer_stride_bytes,
                                .second_stride_bytes = second.outer_stride_bytes,
                                .units = static_cast<uint32_t>(units),
                                .first_units = static_cast<uint32_t>(first.units),
                                .row_units = NarrowDivisor(row_units)},
                       scale);
}

// Bytes of the widest unit that divides all of `bits`, an OR of addresses, strides and widths.
inline int common_unit_bytes(uint64_t bits) {
  for (int unit : {16, 4, 2}) {
    if (bits % static_cast<unsigned>(unit) == 0) return unit;
  }
  return 1;
}

inline uint64_t address_bits(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// launch(unit) with a unit of so many bytes to be copied.
template <class Launch>
cudaError_t with_copied_unit(int unit_bytes, const Launch& launch) {
  switch (unit_bytes) {
    case 16:
      return launch(uint4{});
    case 4:
      return launch(uint32_t{});
    case 2:
      return launch(uint16_t{});
    default:
      return launch(uint8_t{});
  }
}

}  // namespace kvops::kernels
