// Writes the plain MLA entries, [kv_c | k_pe], copied or as float8: one row of concat_rows.cuh per
// token. Launched by cuda::concat_and_cache_mla, fp8_ds_mla entries included (ds_mla_entries.cuh).
// 16 bytes of input or cache at once where everything is aligned, else narrower units.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "common/cuda/indices.cuh"
#include "mla/cuda/kernels/concat_rows.cuh"
#include "mla/cuda/kernels/ds_mla_entries.cuh"
#include "mla/cuda/kernels/entry_place.cuh"
#include "mla/params.h"

namespace kvops::kernels {

inline int64_t input_bytes(DType dtype) { return dtype == DType::kFloat ? 4 : 2; }

inline RowPart token_rows(const void* base, int64_t stride_elems, int64_t units, DType dtype) {
  return {static_cast<const char*>(base), stride_elems * input_bytes(dtype), 0, units};
}

inline uint64_t entry_bits(const MlaEntriesParams& p) {
  return address_bits(p.kv_cache) |
         static_cast<uint64_t>(p.block_stride_bytes | p.entry_stride_bytes);
}

inline uint64_t input_bits(const MlaEntriesParams& p) {
  return address_bits(p.kv_c) | address_bits(p.k_pe) |
         static_cast<uint64_t>(input_bytes(p.dtype) * (p.latent_elems | p.rope_elems |
                                                       p.kv_c_stride_elems | p.k_pe_stride_elems));
}

// Single bytes take any number of slots.
inline cudaError_t launch_copied_entries(const MlaEntriesParams& p, const SkipReport& report,
                                         cudaStream_t stream) {
  const int64_t bytes = input_bytes(p.dtype);
  const int unit_bytes =
      can_count_entries(p) ? common_unit_bytes(entry_bits(p) | input_bits(p)) : 1;
  return with_copied_unit(unit_bytes, [&]<class Unit>(Unit) {
    using Indices = std::conditional_t<sizeof(Unit) == 1, WideIndices, NarrowIndices>;
    const EntryTable<Indices> entries(p, report);
    constexpr int64_t kUnitBytes = sizeof(Unit);
    const RowPart latent =
        token_rows(p.kv_c, p.kv_c_stride_elems, p.latent_elems * bytes / kUnitBytes, p.dtype);
    const RowPart rope =
        token_rows(p.k_pe, p.k_pe_stride_elems, p.rope_elems * bytes / kUnitBytes, p.dtype);
    using Copy = CopyUnit<Unit>;
    if constexpr (kUnitBytes == 16) {
      if (p.tokens > kFewRows && can_concat_units(p.tokens, latent, rope)) {
        return launch_concat_units<Copy>(entries, p.tokens, latent, rope, nullptr, stream);
      }
    }
    return launch_concat_rows<Copy>(entries, p.tokens, latent, rope, nullptr, stream);
  });
}

template <class T, class Fp8, int kCount, class Indices>
cudaError_t launch_fp8_entries_of(const MlaEntriesParams& p, const SkipReport& report,
                                  cudaStream_t stream) {
  return launch_concat_rows<QuantizeUnit<T, Fp8, kCount>>(
      EntryTable<Indices>(p, report), p.tokens,
      token_rows(p.kv_c, p.kv_c_stride_elems, p.latent_elems / kCount, p.dtype),
      token_rows(p.k_pe, p.k_pe_stride_elems, p.rope_elems / kCount, p.dtype), p.scale, stream);
}

template <class T, class Fp8>
cudaError_t launch_fp8_entries_from(const MlaEntriesParams& p, const SkipReport& report,
                                    cudaStream_t stream) {
  // 16 bytes of the cache, or of the input where that is float.
  constexpr int kCount = sizeof(T) == 2 ? 16 : 4;
  const bool is_wide = input_bits(p) % 16 == 0 && entry_bits(p) % kCount == 0 &&
                       (p.latent_elems | p.rope_elems) % kCount == 0 && can_count_entries(p);
  return is_wide ? launch_fp8_entries_of<T, Fp8, kCount, NarrowIndices>(p, report, stream)
                 : launch_fp8_entries_of<T, Fp8, 1, WideIndices>(p, report, stream);
}

template <class Fp8>
cudaError_t launch_fp8_entries(const MlaEntriesParams& p, const SkipReport& report,
                               cudaStream_t stream) {
  switch (p.dtype) {
    case DType::kHalf:
      return launch_fp8_entries_from<half_t, Fp8>(p, report, stream);
    case DType::kBFloat16:
      return launch_fp8_entries_from<bfloat16_t, Fp8>(p, report, stream);
    default:
      return launch_fp8_entries_from<float, Fp8>(p, report, stream);
  }
}

// Kernels: for few and for many rows, 4 widths of copies and 3 dtypes x 2 formats x 2 widths; one
// more of the widest copies; 2 of fp8_ds_mla = 35.
inline cudaError_t launch_concat_and_cache_mla(const MlaEntriesParams& p, const SkipReport& report,
                                               cudaStream_t stream) {
  switch (p.kind) {
    case CacheKind::kFp8DsMla:
      return launch_ds_mla_entries(p, report, stream);
    case CacheKind::kFp8E4m3:
      return launch_fp8_entries<e4m3_t>(p, report, stream);
    case CacheKind::kFp8E5m2:
      return launch_fp8_entries<e5m2_t>(p, report, stream);
    default:
      return launch_copied_entries(p, report, stream);
  }
}

}  // namespace kvops::kernels
