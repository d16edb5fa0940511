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

template <bool kAligned>
__global__ void __launch_bounds__(32 * kDsMlaWarps)
    ds_mla_entries_kernel(const __grid_constant__ MlaEntriesParams p,
                          const __grid_constant__ EntryTable<DsMlaIndices<kAligned>> entries) {
  static_assert(32 / kTileLanes * kTileElems == kDsMlaLatentElems);
  static_assert(kTileLanes * kUnitElems == kDsMlaRopeElems);
  using Token = typename DsMlaIndices<kAligned>::Count;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t tile = lane / kTileLanes;
  const uint32_t tile_lane = lane % kTileLanes;
  const Token token = Token{blockIdx.x} * kDsMlaWarps + threadIdx.x / 32;
  if (token >= entries.slots.tokens) return;
  const bfloat16_t* kv_c = static_cast<const bfloat16_t*>(p.kv_c) + token * p.kv_c_stride_elems;
  const bfloat16_t* k_pe = static_cast<const bfloat16_t*>(p.k_pe) + token * p.k_pe_stride_elems;
  const int64_t slot = entries.slots.of_tokens[token];
  const TileShare share = load_share<kAligned>(kv_c + tile * kTileElems, tile_lane);
  TileUnit rope = {};
  const bool has_rope_share = tile == 0;
  if (has_rope_share && p.rope_elems > 0) {
    rope = load_elems<kAligned, kUnitElems>(k_pe + tile_lane * kUnitElems);
  }
  const float scale = ds_mla_scale(tile_amax(share), p.power_of_two_scales);
  if (!entries.has(slot)) {
    if (lane == 0) entries.slots.report(token, slot);
    return;
  }
  char* entry = entries.place(slot);
  store_share<kAligned>(entry + tile * kTileElems, tile_lane, share, scale);
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
    return launch_kernel(ds_mla_entries_kernel<kAligned>, blocks, 32 * kDsMlaWarps, stream, p,
                         EntryTable<DsMlaIndices<kAligned>>(p, report));
  };
  return bits % 16 == 0 && NarrowIndices::can_count(p.tokens, p.num_slots)
             ? launch(std::true_type{})
             : launch(std::false_type{});
}

}  // namespace kvops::kernels
