// The mover that turns fp8 entries into rows of float, half or bfloat16.
// Launched through launch_gather by gather_and_maybe_dequant_cache.
// Product in float, rounded to nearest even (spec 4.4).
#pragma once

#include <type_traits>

#include "common/cuda/convert.cuh"
#include "common/cuda/divisor.cuh"
#include "gather/cuda/kernels/copy_rows.cuh"

namespace kvops::kernels {

inline constexpr int kPackElems = 16;

// 16 values, stored with 16-byte instructions.
template <class T>
struct alignas(16) Pack {
  T values[kPackElems];
};

template <class Fp8, class T>
__device__ __forceinline__ void scale_pack(const uint4& bytes, float scale, Pack<T>& out) {
  const uint32_t words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float2 pair = widen_pair(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)), Fp8{});
    out.values[2 * i] = narrow_as(__fmul_rn(pair.x, scale), T{});
    out.values[2 * i + 1] = narrow_as(__fmul_rn(pair.y, scale), T{});
  }
}

template <class T>
__device__ __forceinline__ void store_pack(char* to, const Pack<T>& pack) {
  const uint4* from = reinterpret_cast<const uint4*>(&pack);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(Pack<T>) / sizeof(uint4)); ++i) {
    reinterpret_cast<uint4*>(to)[i] = from[i];
  }
}

// A unit is a pack of 16 elements, or one element where something is not aligned.
template <class Fp8, class T, bool kPacked>
struct DequantizeRows {
  static constexpr int64_t kUnitElems = kPacked ? kPackElems : 1;

  EntryRows rows;
  int64_t units_per_row;
  Divisor row_units;
  const float* scale;

  DequantizeRows(const EntryRows& r, int64_t row_elems, const float* scale_pointer)
      : rows(r),
        units_per_row(row_elems / kUnitElems),
        row_units(row_elems / kUnitElems, kMaxChunkRows * row_elems),
        scale(scale_pointer) {}

  __device__ void move(const Entry* entries, int64_t first_row, int count) const {
    const float factor = *scale;
    using Bytes = std::conditional_t<kPacked, uint4, uint8_t>;
    const auto source = [&](int64_t unit) {
      const int64_t row = row_units.quotient(unit);
      if (entries[row].block < 0) return Bytes{};
      const int64_t elem = row_units.remainder(unit, row) * kUnitElems;
      return *reinterpret_cast<const Bytes*>(entry_address(rows, entries[row]) + elem);
    };
    const auto store = [&](int64_t unit, const Bytes& bytes) {
      const int64_t row = row_units.quotient(unit);
      if (entries[row].block < 0) return;
      const int64_t elem = row_units.remainder(unit, row) * kUnitElems;
      char* to = rows.dst + (first_row + row) * rows.row_stride_bytes +
                 elem * static_cast<int64_t>(sizeof(T));
      if constexpr (kPacked) {
        Pack<T> pack;
        scale_pack<Fp8>(bytes, factor, pack);
        store_pack(to, pack);
      } else {
        const float value = widen_pair(bytes, Fp8{}).x;
        *reinterpret_cast<T*>(to) = narrow_as(__fmul_rn(value, factor), T{});
      }
    };
    for_units<4, Bytes>(count * units_per_row, source, store);
  }
};

template <class Fp8, class T>
cudaError_t launch_dequantize_rows(const GatherTables& tables, const EntryRows& rows,
                                   int64_t row_elems, const float* scale, int multiprocessors,
                                   cudaStream_t stream) {
  const uint64_t all = reinterpret_cast<uint64_t>(rows.src) | reinterpret_cast<uint64_t>(rows.dst) |
                       static_cast<uint64_t>(rows.block_stride_bytes | rows.entry_stride_bytes |
                                             rows.row_stride_bytes | row_elems);
  if (all % kPackElems == 0) {
    const DequantizeRows<Fp8, T, true> mover(rows, row_elems, scale);
    return launch_gather(tables, mover, rows.row_bytes, multiprocessors, stream);
  }
  const DequantizeRows<Fp8, T, false> mover(rows, row_elems, scale);
  return launch_gather(tables, mover, rows.row_bytes, multiprocessors, stream);
}

}  // namespace kvops::kernels
