// Rows of two parts side by side, out = [first | second], each unit converted on its way.
// Used by concat_mla_q and concat_and_cache_mla. A block takes neighbouring rows, so its loads and
// stores are as dense as those of a plain copy, and each thread has several loads under way.
// On entry every pointer, stride and width must be a multiple of the unit.
#pragma once

#include <cuda_runtime.h>

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

// A thread takes the same column of kRowsPerThread rows. `lanes` threads take a row's columns, or,
// if these are too many, an equal share of them, and `slots` such groups are a block.
struct RowTiles {
  int64_t rows;
  RowPart first;
  RowPart second;
  uint32_t row_units;
  uint32_t lanes;
  uint32_t slots;
  NarrowDivisor lane_count;
};

inline constexpr uint32_t kMaxRowThreads = 192;
inline constexpr uint32_t kMaxRowShares = 65535;  // blocks of a grid along y
// Rows of a thread: more of them share more of the arithmetic, but then blocks read and write in
// larger steps, which memory likes less.
inline constexpr uint32_t kManyRows = 2;

// Of the template argument Rows, `split(row)` says which (outer, inner) row of the inputs becomes
// row, `lookup(row, outer, inner)` reads or computes what tells where a
// row goes, `place(found)` makes the address of it, null if the row is skipped, and
// `report_if_skipped(row, found)` is called by one thread for each row. Everything is read before
// anything is waited for.
template <uint32_t kRowsPerThread, class Convert, class Rows>
__global__ void __launch_bounds__(kMaxRowThreads)
    concat_rows_kernel(const __grid_constant__ Rows rows, const __grid_constant__ RowTiles tiles,
                       const float* scale_or_null) {
  using In = typename Convert::In;
  using Out = typename Convert::Out;
  // Then blocks are one group of lanes, as many as there are rows.
  constexpr bool kOneRow = kRowsPerThread == 1;
  const auto [slot, lane] =
      kOneRow ? Divided<uint32_t>{0, threadIdx.x} : tiles.lane_count.divide(threadIdx.x);
  const int64_t first_row =
      kOneRow ? blockIdx.x : uint64_t{blockIdx.x} * (tiles.slots * kRowsPerThread) + slot;
  const uint32_t column = blockIdx.y * tiles.lanes + lane;
  if (column >= tiles.row_units) return;
  const bool is_first = column < tiles.first.units;
  const RowPart& part = is_first ? tiles.first : tiles.second;
  const uint32_t unit = column - (is_first ? 0 : static_cast<uint32_t>(tiles.first.units));
  const char* from = part.base + uint64_t{unit} * sizeof(In);
  In values[kRowsPerThread];
  typename Rows::Found found[kRowsPerThread];
#pragma unroll
  for (uint32_t j = 0; j < kRowsPerThread; ++j) {
    const int64_t row = first_row + j * tiles.slots;
    if (!kOneRow && row >= tiles.rows) continue;
    const auto [outer, inner] = rows.split(row);
    found[j] = rows.lookup(row, outer, inner);
    values[j] = *reinterpret_cast<const In*>(from + outer * part.outer_stride_bytes +
                                             inner * part.inner_stride_bytes);
  }
  const Convert convert(scale_or_null != nullptr ? *scale_or_null : 1.0f);
#pragma unroll
  for (uint32_t j = 0; j < kRowsPerThread; ++j) {
    const int64_t row = first_row + j * tiles.slots;
    if (!kOneRow && row >= tiles.rows) continue;
    char* out = rows.place(found[j]);
    if (out != nullptr) store_words(reinterpret_cast<Out*>(out) + column, convert(values[j]));
  }
  if (column != 0) return;
  // Last, when no call can take registers from what is still to be stored.
#pragma unroll
  for (uint32_t j = 0; j < kRowsPerThread; ++j) {
    const int64_t row = first_row + j * tiles.slots;
    if (kOneRow || row < tiles.rows) rows.report_if_skipped(row, found[j]);
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

template <uint32_t kRowsPerThread, class Convert, class Rows>
cudaError_t launch_row_tiles(const Rows& rows, const RowTiles& tiles, const float* scale,
                             cudaStream_t stream) {
  const int64_t tile_rows = int64_t{tiles.slots} * kRowsPerThread;
  const int64_t blocks = (tiles.rows + tile_rows - 1) / tile_rows;
  const uint32_t shares = (tiles.row_units + tiles.lanes - 1) / tiles.lanes;
  if (blocks > INT32_MAX || shares > kMaxRowShares) return cudaErrorInvalidConfiguration;
  return launch_kernel(concat_rows_kernel<kRowsPerThread, Convert, Rows>,
                       dim3(static_cast<unsigned>(blocks), shares), tiles.lanes * tiles.slots,
                       stream, rows, tiles, scale);
}

// Strides and widths of the parts are whole units.
template <class Convert, class Rows>
cudaError_t launch_concat_rows(const Rows& rows, int64_t row_count, const RowPart& first,
                               const RowPart& second, const float* scale, cudaStream_t stream) {
  const int64_t row_units = first.units + second.units;
  if (row_count == 0 || row_units == 0) return cudaSuccess;
  if (row_units > INT32_MAX) return cudaErrorInvalidConfiguration;
  // Few rows should still reach many multiprocessors, which short code reaches sooner.
  constexpr int64_t kFewRows = 2048;
  const bool few = row_count <= kFewRows;
  const int64_t shares = (row_units + kMaxRowThreads - 1) / kMaxRowThreads;
  const int lanes = static_cast<int>((row_units + shares - 1) / shares);
  const RowTiles tiles{
      .rows = row_count,
      .first = first,
      .second = second,
      .row_units = static_cast<uint32_t>(row_units),
      .lanes = static_cast<uint32_t>(lanes),
      .slots = static_cast<uint32_t>(few ? 1 : row_slots(lanes)),
      .lane_count = NarrowDivisor(lanes),
  };
  return few ? launch_row_tiles<1, Convert>(rows, tiles, scale, stream)
             : launch_row_tiles<kManyRows, Convert>(rows, tiles, scale, stream);
}

// Bytes of the widest unit that divides all of `bits`, an OR of addresses, strides and widths.
inline int common_unit_bytes(uint64_t bits) {
  for (int unit : {16, 4, 2}) {
    if (bits % static_cast<unsigned>(unit) == 0) return unit;
  }
  return 1;
}

inline uint64_t address_bits(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// Copies rows in units of so many bytes. Widths are given in bytes here.
template <class Rows>
cudaError_t launch_copy_rows(const Rows& rows, int64_t row_count, RowPart first, RowPart second,
                             int unit_bytes, cudaStream_t stream) {
  const auto copy = [&]<class Unit>(Unit) {
    first.units /= sizeof(Unit);
    second.units /= sizeof(Unit);
    return launch_concat_rows<CopyUnit<Unit>>(rows, row_count, first, second, nullptr, stream);
  };
  switch (unit_bytes) {
    case 16:
      return copy(uint4{});
    case 4:
      return copy(uint32_t{});
    case 2:
      return copy(uint16_t{});
    default:
      return copy(uint8_t{});
  }
}

}  // namespace kvops::kernels
