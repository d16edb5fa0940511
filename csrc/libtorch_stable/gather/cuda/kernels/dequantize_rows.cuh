// The mover that turns fp8 entries into rows of float, half or bfloat16, all with one scale.
// Launched through launch_gather by gather_and_maybe_dequant_cache.
// A unit is what becomes 16 bytes of a row, or one element where something is not aligned.
#pragma once

#include "gather/cuda/kernels/copy_rows.cuh"
#include "gather/cuda/kernels/widen_fp8.cuh"

namespace kvops::kernels {

template <class Fp8, class T, bool kIsWide>
struct DequantizeRows : EntryMover {
  static constexpr int kUnitElems = kIsWide ? 16 / sizeof(T) : 1;
  using Loaded = Packed<Fp8, kUnitElems>;
  static constexpr int kAlignment = sizeof(Loaded);

  int64_t columns;
  const float* scale_pointer;

  DequantizeRows(const EntryRows& r, int64_t row_elems, const float* scale)
      : EntryMover{r}, columns(row_elems / kUnitElems), scale_pointer(scale) {}

  __device__ float scale() const { return *scale_pointer; }
  __device__ static Loaded load(const char* entry, int64_t column) {
    return reinterpret_cast<const Loaded*>(entry)[column];
  }
  __device__ static void store(char* to, int64_t column, const Loaded& bytes, float scale) {
    if constexpr (kIsWide) {
      store_words(reinterpret_cast<uint4*>(to) + column, widen_scaled<Fp8>(bytes, scale, T{}));
    } else {
      const float value = widen_pair(bytes, Fp8{}).x;
      reinterpret_cast<T*>(to)[column] = narrow_as(__fmul_rn(value, scale), T{});
    }
  }
};

template <class Fp8, class T>
cudaError_t launch_dequantize_rows(const GatherCall& call, const EntryRows& rows, int64_t row_elems,
                                   const float* scale) {
  using Wide = DequantizeRows<Fp8, T, true>;
  const uint64_t from =
      reinterpret_cast<uint64_t>(rows.src) |
      static_cast<uint64_t>(rows.block_stride_bytes | rows.entry_stride_bytes | row_elems);
  const uint64_t to =
      reinterpret_cast<uint64_t>(rows.dst) | static_cast<uint64_t>(rows.row_stride_bytes);
  if (from % Wide::kUnitElems == 0 && to % 16 == 0) {
    return launch_gather(call, Wide(rows, row_elems, scale));
  }
  return launch_gather(call, DequantizeRows<Fp8, T, false>(rows, row_elems, scale));
}

}  // namespace kvops::kernels
