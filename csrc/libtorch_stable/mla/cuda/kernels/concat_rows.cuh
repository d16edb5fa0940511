// Rows of two parts side by side, out = [first | second], each unit converted on its way.
// Used by concat_mla_q and concat_and_cache_mla. A block takes neighbouring rows, so its loads and
// stores are as dense as those of a plain copy, and each thread has several loads under way.
// On entry every pointer, stride and width must be a multiple of the unit.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/fp8_quotient.cuh"
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
    const auto elems = __builtin_bit_cast(Vec<T, kCount>, in);
    float x[kCount];
    Vec<Fp8, kCount> bytes;
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = widen(elems.elems[i]);
    quotient.divide(x, bytes.elems);
    return __builtin_bit_cast(Out, bytes);
  }
  Fp8Quotient quotient;
};

// ---- the kernel

// A thread takes the same column of several rows. `lanes` threads take a row's columns, as many as
// a row has units unless these are too many, and `slots` such groups are a block.
struct RowTiles {
  int64_t rows;
  Divisor inner;  // rows with the same outer index
  RowPart first;
  RowPart second;
  Divisor lane_count;
  int lanes;
  int slots;
};

inline constexpr int kRowsPerThread = 4;
inline constexpr int kMaxRowThreads = 384;

// Of the template argument Rows, `lookup(row, outer, inner)` reads or computes what tells where a
// row goes, `place(found)` makes the address of it, null if the row is skipped, and `skip(row)` is
// called by one thread for each of these. Everything is read before anything is waited for.
template <class Convert, class Rows>
__global__ void __launch_bounds__(kMaxRowThreads)
    concat_rows_kernel(const __grid_constant__ Rows rows, const __grid_constant__ RowTiles tiles,
                       const float* scale_or_null) {
  using In = typename Convert::In;
  using Out = typename Convert::Out;
  const float scale = scale_or_null != nullptr ? *scale_or_null : 1.0f;
  const int64_t slot = tiles.lane_count.quotient(threadIdx.x);
  const int64_t lane = tiles.lane_count.remainder(threadIdx.x, slot);
  const int64_t row_units = tiles.first.units + tiles.second.units;
  const int64_t tile_rows = static_cast<int64_t>(tiles.slots) * kRowsPerThread;
  for (int64_t base = blockIdx.x * tile_rows; base < tiles.rows; base += gridDim.x * tile_rows) {
    for (int64_t column = lane; column < row_units; column += tiles.lanes) {
      const bool is_first = column < tiles.first.units;
      const RowPart part = is_first ? tiles.first : tiles.second;
      const int64_t part_column = is_first ? column : column - tiles.first.units;
      In values[kRowsPerThread];
      typename Rows::Found found[kRowsPerThread];
#pragma unroll
      for (int j = 0; j < kRowsPerThread; ++j) {
        const int64_t row = base + j * tiles.slots + slot;
        if (row >= tiles.rows) continue;
        const int64_t outer = tiles.inner.quotient(row);
        const int64_t inner = tiles.inner.remainder(row, outer);
        values[j] = reinterpret_cast<const In*>(part.base + outer * part.outer_stride_bytes +
                                                inner * part.inner_stride_bytes)[part_column];
        found[j] = rows.lookup(row, outer, inner);
      }
      // Hidden from the compiler, which would wait for the scale and invert it before the loads.
      float used_scale = scale;
      asm volatile("" : "+f"(used_scale));
      const Convert convert(used_scale);
#pragma unroll
      for (int j = 0; j < kRowsPerThread; ++j) {
        const int64_t row = base + j * tiles.slots + slot;
        if (row >= tiles.rows) continue;
        char* out = rows.place(found[j]);
        if (out != nullptr) {
          store_words(reinterpret_cast<Out*>(out) + column, convert(values[j]));
        } else if (column == 0) {
          rows.skip(row);
        }
      }
    }
  }
}

// Groups of lanes in a block: few threads of a warp should be idle, and few rows should still reach
// many multiprocessors.
inline int row_slots(int64_t rows, int lanes) {
  constexpr int64_t kFewRows = 4096;
  if (rows < kFewRows) return 1;
  int best = 1;
  const auto idle = [lanes](int slots) { return (32 - lanes * slots % 32) % 32; };
  for (int slots = 1; slots * lanes <= kMaxRowThreads; ++slots) {
    if (idle(slots) * best <= idle(best) * slots) best = slots;
  }
  return best;
}

// `inner_rows` rows share an outer index; strides and widths of the parts are whole units.
template <class Convert, class Rows>
cudaError_t launch_concat_rows(const Rows& rows, int64_t row_count, int64_t inner_rows,
                               const RowPart& first, const RowPart& second, const float* scale,
                               cudaStream_t stream) {
  const int64_t row_units = first.units + second.units;
  if (row_count == 0 || row_units == 0) return cudaSuccess;
  const int lanes = static_cast<int>(row_units < kMaxRowThreads ? row_units : kMaxRowThreads);
  const int slots = row_slots(row_count, lanes);
  const RowTiles tiles{
      .rows = row_count,
      .inner = Divisor(inner_rows, row_count),
      .first = first,
      .second = second,
      .lane_count = Divisor(lanes, kMaxRowThreads),
      .lanes = lanes,
      .slots = slots,
  };
  const int64_t tile_rows = int64_t{slots} * kRowsPerThread;
  const int64_t wanted = (row_count + tile_rows - 1) / tile_rows;
  const unsigned blocks = static_cast<unsigned>(wanted < INT32_MAX ? wanted : INT32_MAX);
  concat_rows_kernel<Convert>
      <<<blocks, static_cast<unsigned>(lanes * slots), 0, stream>>>(rows, tiles, scale);
  return cudaGetLastError();
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
cudaError_t launch_copy_rows(const Rows& rows, int64_t row_count, int64_t inner_rows, RowPart first,
                             RowPart second, int unit_bytes, cudaStream_t stream) {
  const auto copy = [&]<class Unit>(Unit) {
    first.units /= sizeof(Unit);
    second.units /= sizeof(Unit);
    return launch_concat_rows<CopyUnit<Unit>>(rows, row_count, inner_rows, first, second, nullptr,
                                              stream);
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
