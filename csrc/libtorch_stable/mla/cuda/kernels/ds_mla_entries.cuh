// Writes the 656-byte fp8_ds_mla entry of every token: a warp per token, 8 elements per lane and
// load. Launched by concat_and_cache_mla only.
// 16-byte loads and stores where everything is 16-byte aligned, else single elements and bytes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "mla/cuda/kernels/entry_place.cuh"
#include "mla/cuda/kernels/quantize_tile.cuh"
#include "mla/params.h"

namespace kvops::kernels {

inline constexpr int kDsMlaWarps = 8;  // of a block

// A warp load takes two tiles, so a lane has a share of two of the four.
template <bool kAligned>
__device__ __forceinline__ void write_latent(const LaneElems& elems, int tile, char* entry,
                                             bool power_of_two, bool is_skipped) {
  const int tile_lane = static_cast<int>(threadIdx.x) % kTileLanes;
  float x[kLaneElems];
  widen_lane(elems, x);
  const float scale = ds_mla_scale(tile_amax(x), power_of_two);
  if (is_skipped) return;
  store_lane<kAligned>(entry + tile * kTileElems + tile_lane * kLaneElems, quantize_lane(x, scale));
  if (tile_lane == 0) {
    store_lane<kAligned>(entry + kDsMlaScalesByte + tile * static_cast<int>(sizeof(float)), scale);
  }
}

template <bool kAligned>
__global__ void __launch_bounds__(32 * kDsMlaWarps)
    ds_mla_entries_kernel(const __grid_constant__ MlaEntriesParams p,
                          const __grid_constant__ EntryTable entries) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int tile = lane / kTileLanes;
  const int elem = lane * kLaneElems;
  const bool has_rope_share = elem < kDsMlaRopeElems;
  const bool reads_rope = has_rope_share && p.rope_elems > 0;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kDsMlaWarps;
  int64_t token = static_cast<int64_t>(blockIdx.x) * kDsMlaWarps + threadIdx.x / 32;
  for (; token < p.tokens; token += warps) {
    const bfloat16_t* kv_c = static_cast<const bfloat16_t*>(p.kv_c) + token * p.kv_c_stride_elems;
    const bfloat16_t* k_pe = static_cast<const bfloat16_t*>(p.k_pe) + token * p.k_pe_stride_elems;
    const LaneElems front = load_lane<kAligned>(kv_c + elem);
    const LaneElems back = load_lane<kAligned>(kv_c + 32 * kLaneElems + elem);
    LaneElems rope = {};
    if (reads_rope) rope = load_lane<kAligned>(k_pe + elem);
    char* entry = entries.place(entries.table.slots[token]);
    const bool is_skipped = entry == nullptr;
    if (is_skipped && lane == 0) entries.skip(token);
    write_latent<kAligned>(front, tile, entry, p.power_of_two_scales, is_skipped);
    write_latent<kAligned>(back, tile + 2, entry, p.power_of_two_scales, is_skipped);
    if (has_rope_share && !is_skipped) {
      store_lane<kAligned>(entry + kDsMlaRopeByte + lane * static_cast<int>(sizeof(rope)), rope);
    }
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
  const unsigned blocks = static_cast<unsigned>(wanted < INT32_MAX ? wanted : INT32_MAX);
  const auto kernel = bits % 16 == 0 ? ds_mla_entries_kernel<true> : ds_mla_entries_kernel<false>;
  kernel<<<blocks, 32 * kDsMlaWarps, 0, stream>>>(p, EntryTable(p, report));
  return cudaGetLastError();
}

}  // namespace kvops::kernels
