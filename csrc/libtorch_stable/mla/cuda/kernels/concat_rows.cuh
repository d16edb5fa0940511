// Rows of two parts side by side, out = [first | second], each unit converted on its way.
// Used by concat_mla_q and concat_and_cache_mla. All units of all rows are one flat space, spread
// evenly over threads that each have several loads under way, whatever the width of a row.
// On entry every pointer, stride and width must be a multiple of the unit.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/fp8_quotient.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

// Where a row is. `out` may depend on an index that was read, the others must not: they are read
// before that index is there.
struct RowPlace {
  const char* first;
  const char* second;
  char* out;  // null: the row is skipped
};

// ---- what happens to a unit

template <class Unit>
struct CopyUnit {
  using In = Unit;
  using Out = Unit;
  __device__ explicit CopyUnit(const float*) {}
  __device__ Out operator()(In in) const { return in; }
};

template <class T, class Fp8, int kCount>
struct QuantizeUnit {
  using In = Vec<T, kCount>;
  using Out = Vec<Fp8, kCount>;
  // No scale is a scale of 1.
  __device__ explicit QuantizeUnit(const float* scale)
      : quotient(scale != nullptr ? *scale : 1.0f) {}
  __device__ Out operator()(const In& in) const {
    float x[kCount];
    Out out;
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = widen(in.elems[i]);
    quotient.divide(x, out.elems);
    return out;
  }
  Fp8Quotient quotient;
};

// ---- the kernel

// Of the template argument Rows, `at(row)` is a row's RowPlace, and `skip(row)` is called by one
// thread for each row without `out`.
struct FlatRows {
  int64_t first_units;  // of a row
  int64_t units;        // of all rows
  Divisor row_units;

  FlatRows(int64_t rows, int64_t first_units, int64_t second_units)
      : first_units(first_units),
        units(rows * (first_units + second_units)),
        row_units(first_units + second_units, units) {}
};

inline constexpr int kUnitsPerThread = 4;

template <class Convert, class Rows>
__global__ void concat_rows_kernel(const __grid_constant__ Rows rows,
                                   const __grid_constant__ FlatRows flat, const float* scale) {
  using In = typename Convert::In;
  using Out = typename Convert::Out;
  const Convert convert(scale);
  const int64_t block_units = static_cast<int64_t>(blockDim.x) * kUnitsPerThread;
  for (int64_t base = blockIdx.x * block_units; base < flat.units;
       base += gridDim.x * block_units) {
    In values[kUnitsPerThread];
    Out* places[kUnitsPerThread];
#pragma unroll
    for (int j = 0; j < kUnitsPerThread; ++j) {
      places[j] = nullptr;
      const int64_t unit = base + j * static_cast<int64_t>(blockDim.x) + threadIdx.x;
      if (unit >= flat.units) continue;
      const int64_t row = flat.row_units.quotient(unit);
      const int64_t column = flat.row_units.remainder(unit, row);
      const RowPlace place = rows.at(row);
      const int64_t second_column = column - flat.first_units;
      values[j] = second_column < 0 ? reinterpret_cast<const In*>(place.first)[column]
                                    : reinterpret_cast<const In*>(place.second)[second_column];
      if (place.out != nullptr) {
        places[j] = reinterpret_cast<Out*>(place.out) + column;
      } else if (column == 0) {
        rows.skip(row);
      }
    }
#pragma unroll
    for (int j = 0; j < kUnitsPerThread; ++j) {
      if (places[j] != nullptr) *places[j] = convert(values[j]);
    }
  }
}

template <class Convert, class Rows>
cudaError_t launch_concat_rows(const Rows& rows, const FlatRows& flat, const float* scale,
                               cudaStream_t stream) {
  if (flat.units == 0) return cudaSuccess;
  // Few units: small blocks, so that more multiprocessors take part.
  const int64_t threads = flat.units < (int64_t{1} << 18) ? 64 : 256;
  const int64_t wanted = (flat.units + threads * kUnitsPerThread - 1) / (threads * kUnitsPerThread);
  const int64_t blocks = wanted < INT32_MAX ? wanted : INT32_MAX;
  concat_rows_kernel<Convert>
      <<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, stream>>>(rows, flat,
                                                                                     scale);
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

// Copies rows in units of so many bytes.
template <class Rows>
cudaError_t launch_copy_rows(const Rows& rows, int64_t count, int64_t first_bytes,
                             int64_t second_bytes, int unit_bytes, cudaStream_t stream) {
  const FlatRows flat(count, first_bytes / unit_bytes, second_bytes / unit_bytes);
  switch (unit_bytes) {
    case 16:
      return launch_concat_rows<CopyUnit<uint4>>(rows, flat, nullptr, stream);
    case 4:
      return launch_concat_rows<CopyUnit<uint32_t>>(rows, flat, nullptr, stream);
    case 2:
      return launch_concat_rows<CopyUnit<uint16_t>>(rows, flat, nullptr, stream);
    default:
      return launch_concat_rows<CopyUnit<uint8_t>>(rows, flat, nullptr, stream);
  }
}

}  // namespace kvops::kernels
