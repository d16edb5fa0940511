// Writes the 656-byte fp8_ds_mla entry of every token: a warp per token, 8 lanes per tile.
// Launched by concat_and_cache_mla only.
// 16-byte loads and stores where everything is 16-byte aligned, else single elements and bytes, of
// any number of slots.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "common/cuda/indices.cuh"
#include "common/cuda/launch.cuh"
#include "mla/cuda/kernels/entry_place.cuh"
#include "mla/cuda/kernels/quantize_tile.cuh"
#include "mla/params.h"

namespace kvops::kernels {

inline constexpr int kDsMlaWarps = 2;  // of a block

template <bool kAligned>
using DsMlaIndices = std::conditional_t<kAligned, NarrowIndices, WideIndices>;

// Strides in bytes.
template <class Indices>
struct DsMlaRows {
  const char* kv_c;
  const char* k_pe;
  typename Indices::Stride kv_c_stride;
  typename Indices::Stride k_pe_stride;
  bool has_rope;
  bool power_of_two_scales;
};

template <bool kAligned>
__global__ void __launch_bounds__(32 * kDsMlaWarps)
    ds_mla_entries_kernel(const __grid_constant__ DsMlaRows<DsMlaIndices<kAligned>> rows,
                          const __grid_constant__ EntryTable<DsMlaIndices<kAligned>> entries) {
  static_assert(32 / kTileLanes * kTileElems == kDsMlaLatentElems);
  static_assert(kTileLanes * kUnitElems == kDsMlaRopeElems);
  using Token = typename DsMlaIndices<kAligned>::Count;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t tile = lane / kTileLanes;
  const uint32_t tile_lane = lane % kTileLanes;
  const Token token = Token{blockIdx.x} * kDsMlaWarps + threadIdx.x / 32;
  if (token >= entries.slots.tokens) return;
  const int64_t slot = entries.slots.of_tokens[token];
  const auto row_of = [token](const char* first, auto stride) {
    return reinterpret_cast<const bfloat16_t*>(first + static_cast<uint64_t>(token) * stride);
  };
  const bfloat16_t* kv_c = row_of(rows.kv_c, rows.kv_c_stride);
  const bfloat16_t* k_pe = row_of(rows.k_pe, rows.k_pe_stride);
  const TileShare share = load_share<kAligned>(kv_c, lane);
  TileUnit rope = {};
  const bool has_rope_share = tile == 0;
  if (has_rope_share && rows.has_rope) {
    rope = load_elems<kAligned, kUnitElems>(k_pe + tile_lane * kUnitElems);
  }
  const float scale = ds_mla_scale(tile_amax(share), rows.power_of_two_scales);
  if (!entries.has(slot)) {
    if (lane == 0) entries.slots.report(token, slot);
    return;
  }
  char* entry = entries.place(slot);
  store_share<kAligned>(entry, lane, share, scale);
  if (tile_lane == 0) {
    store_aligned<kAligned>(entry + kDsMlaScalesByte + tile * sizeof(float), scale);
  }
  if (has_rope_share) {
    store_aligned<kAligned>(entry + kDsMlaRopeByte + tile_lane * sizeof(rope), rope);
  }
}

inline cudaError_t launch_ds_mla_entries(const MlaEntriesParams& p, const SkipReport& report,
                                         cudaStream_t stream) {
  if (p.tokens == 0) return cudaSuccess;
  constexpr int64_t kBytes = sizeof(bfloat16_t);
  uint64_t bits = reinterpret_cast<uint64_t>(p.kv_c) | reinterpret_cast<uint64_t>(p.kv_cache) |
                  static_cast<uint64_t>(p.kv_c_stride_elems * kBytes | p.block_stride_bytes |
                                        p.entry_stride_bytes);
  if (p.rope_elems > 0) {
    bits |=
        reinterpret_cast<uint64_t>(p.k_pe) | static_cast<uint64_t>(p.k_pe_stride_elems * kBytes);
  }
  const int64_t wanted = (p.tokens + kDsMlaWarps - 1) / kDsMlaWarps;
  if (wanted > INT32_MAX) return cudaErrorInvalidConfiguration;
  const unsigned blocks = static_cast<unsigned>(wanted);
  const auto launch = [&]<bool kAligned>(std::bool_constant<kAligned>) {
    using Indices = DsMlaIndices<kAligned>;
    using Stride = typename Indices::Stride;
    return launch_kernel(ds_mla_entries_kernel<kAligned>, blocks, 32 * kDsMlaWarps, stream,
                         DsMlaRows<Indices>{
                             .kv_c = static_cast<const char*>(p.kv_c),
                             .k_pe = static_cast<const char*>(p.k_pe),
                             .kv_c_stride = static_cast<Stride>(p.kv_c_stride_elems * kBytes),
                             .k_pe_stride = static_cast<Stride>(p.k_pe_stride_elems * kBytes),
                             .has_rope = p.rope_elems > 0,
                             .power_of_two_scales = p.power_of_two_scales,
                         },
                         EntryTable<Indices>(p, report));
  };
  const bool can_count = can_count_entries(p) &&
                         NarrowIndices::can_stride(p.kv_c_stride_elems * kBytes) &&
                         NarrowIndices::can_stride(p.k_pe_stride_elems * kBytes);
  return bits % 16 == 0 && can_count ? launch(std::true_type{}) : launch(std::false_type{});
}

}  // namespace kvops::kernels
