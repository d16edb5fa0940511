// Quantises tokens into nvfp4 pages: a thread takes groups of 16 elements, several in flight, over
// the flat space (token, head, group) of keys and of values. Bytes are those of cache/nvfp4.h.
// Launched by cuda::write_nvfp4_pages; falls back to single elements and bytes where it must.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cache/cuda/kernels/movers.cuh"
#include "cache/cuda/kernels/slots.cuh"
#include "cache/nvfp4.h"
#include "cache/params.h"

namespace kvops::kernels {

// One of key and value.
struct Nvfp4SideWriter {
  const char* src;
  const float* scale;
  uint8_t* cache;
  int64_t groups;  // of all tokens
  Divisor groups_per_token;
  Divisor groups_per_head;
  Divisor groups_per_quarter;  // of a head
  int64_t src_token_stride_bytes;
  int64_t src_head_stride_bytes;
  int64_t block_stride;
  int64_t data_offset_stride;
  int64_t data_head_stride;
  int64_t scales_start;
  int64_t scales_offset_stride;
  int64_t scales_head_stride;
  bool scales_in_tiles;
  bool reports;
};

struct Nvfp4Writer {
  Nvfp4SideWriter sides[2];
  Slots slots;
};

inline constexpr int kNvfp4Threads = 256;
inline constexpr int kNvfp4GroupsInFlight = 2;

template <class T>
struct alignas(16) Nvfp4Group {
  T of[kNvfp4GroupElems];
};

struct Nvfp4Position {
  int64_t token;
  int64_t head;
  int64_t group;  // of the head
};

__device__ __forceinline__ Nvfp4Position nvfp4_position(const Nvfp4SideWriter& side,
                                                        int64_t index) {
  const int64_t token = side.groups_per_token.quotient(index);
  const int64_t in_token = side.groups_per_token.remainder(index, token);
  const int64_t head = side.groups_per_head.quotient(in_token);
  return {token, head, side.groups_per_head.remainder(in_token, head)};
}

template <bool kWide, class T>
__device__ __forceinline__ Nvfp4Group<T> load_nvfp4_group(const char* from) {
  if constexpr (kWide) {
    return *reinterpret_cast<const Nvfp4Group<T>*>(from);
  } else {
    Nvfp4Group<T> group;
#pragma unroll
    for (int i = 0; i < kNvfp4GroupElems; ++i) group.of[i] = reinterpret_cast<const T*>(from)[i];
    return group;
  }
}

// Two words of 8 codes each, and the scale.
struct Nvfp4Quantized {
  uint32_t words[2];
  e4m3_t scale;
};

template <class T>
__device__ __forceinline__ Nvfp4Quantized quantize_nvfp4_group(const Nvfp4Group<T>& group,
                                                               float global_factor) {
  float x[kNvfp4GroupElems];
  float amax = 0.0f;
#pragma unroll
  for (int i = 0; i < kNvfp4GroupElems; ++i) {
    x[i] = widen(group.of[i]);
    amax = fmaxf(amax, fabsf(x[i]));  // ignores NaN
  }
  Nvfp4Quantized result{.words = {0, 0}, .scale = nvfp4_group_scale(amax, global_factor)};
  const float multiplier = nvfp4_multiplier(result.scale, global_factor);
#pragma unroll
  for (int i = 0; i < kNvfp4GroupElems; ++i) {
    result.words[i / 8] |= encode_e2m1(__fmul_rn(x[i], multiplier)) << (i % 8 * 4);
  }
  return result;
}

template <bool kWide>
__device__ __forceinline__ void store_nvfp4_group(const Nvfp4SideWriter& side, uint8_t* page,
                                                  int64_t offset, const Nvfp4Position& at,
                                                  const Nvfp4Quantized& quantized) {
  uint8_t* data = page + offset * side.data_offset_stride + at.head * side.data_head_stride +
                  at.group * kNvfp4GroupBytes;
  if constexpr (kWide) {
    *reinterpret_cast<uint2*>(data) = {quantized.words[0], quantized.words[1]};
  } else {
#pragma unroll
    for (int i = 0; i < kNvfp4GroupBytes; ++i) {
      data[i] = static_cast<uint8_t>(quantized.words[i / 4] >> (i % 4 * 8));
    }
  }
  Nvfp4Place place{offset, at.group};
  if (side.scales_in_tiles) {
    const int64_t quarter = side.groups_per_quarter.quotient(at.group);
    place =
        nvfp4_tiled_place(offset, quarter, side.groups_per_quarter.remainder(at.group, quarter));
  }
  page[side.scales_start + at.head * side.scales_head_stride +
       place.offset * side.scales_offset_stride + place.group] = quantized.scale.bits;
}

template <class T, bool kWide>
__global__ void __launch_bounds__(kNvfp4Threads)
    nvfp4_writer_kernel(const __grid_constant__ Nvfp4Writer w) {
  const Nvfp4SideWriter& side = w.sides[blockIdx.y];
  if (side.groups == 0) return;
  const float global_factor = nvfp4_global_factor(*side.scale);
  const int64_t tile = static_cast<int64_t>(blockDim.x) * kNvfp4GroupsInFlight;
  for (int64_t base = blockIdx.x * tile; base < side.groups; base += gridDim.x * tile) {
    Nvfp4Group<T> loaded[kNvfp4GroupsInFlight];
    Nvfp4Position at[kNvfp4GroupsInFlight];
    int64_t slot[kNvfp4GroupsInFlight];
#pragma unroll
    for (int i = 0; i < kNvfp4GroupsInFlight; ++i) {
      // Behind the end, the last group is loaded again and not stored: no branch between the loads.
      const int64_t wanted = base + i * static_cast<int64_t>(blockDim.x) + threadIdx.x;
      at[i] = nvfp4_position(side, wanted < side.groups ? wanted : side.groups - 1);
      slot[i] = w.slots.of_tokens[at[i].token];
      loaded[i] =
          load_nvfp4_group<kWide, T>(side.src + at[i].token * side.src_token_stride_bytes +
                                     at[i].head * side.src_head_stride_bytes +
                                     at[i].group * static_cast<int64_t>(sizeof(Nvfp4Group<T>)));
    }
#pragma unroll
    for (int i = 0; i < kNvfp4GroupsInFlight; ++i) {
      if (base + i * static_cast<int64_t>(blockDim.x) + threadIdx.x >= side.groups) break;
      if (w.slots.is_written(slot[i])) {
        const int64_t block = w.slots.block_size.quotient(slot[i]);
        store_nvfp4_group<kWide>(side, side.cache + block * side.block_stride,
                                 w.slots.block_size.remainder(slot[i], block), at[i],
                                 quantize_nvfp4_group(loaded[i], global_factor));
      } else if (side.reports && at[i].head == 0 && at[i].group == 0) {
        w.slots.report(at[i].token, slot[i]);
      }
    }
  }
}

// ---- launch

inline Nvfp4SideWriter nvfp4_side_writer(const Nvfp4Side& s, const Nvfp4WriterParams& p) {
  const int64_t src_bytes = element_bytes_of(p.dtype);
  const int64_t groups_per_head = s.head_size / kNvfp4GroupElems;
  const int64_t groups_per_token = groups_per_head * p.heads;
  const int64_t groups = groups_per_token * p.tokens;
  return {
      .src = s.src,
      .scale = s.scale,
      .cache = s.cache,
      .groups = groups,
      .groups_per_token = Divisor(groups_per_token, groups),
      .groups_per_head = Divisor(groups_per_head, groups_per_token),
      .groups_per_quarter = Divisor(groups_per_head / 4, groups_per_head),
      .src_token_stride_bytes = s.src_token_stride * src_bytes,
      .src_head_stride_bytes = s.src_head_stride * src_bytes,
      .block_stride = s.block_stride,
      .data_offset_stride = s.data_offset_stride,
      .data_head_stride = s.data_head_stride,
      .scales_start = s.scales_start,
      .scales_offset_stride = s.scales_offset_stride,
      .scales_head_stride = s.scales_head_stride,
      .scales_in_tiles = s.scales_in_tiles,
      .reports = false,
  };
}

template <class T, bool kWide>
cudaError_t launch_nvfp4_kernel(const Nvfp4Writer& w, cudaStream_t stream) {
  const int64_t groups =
      w.sides[0].groups > w.sides[1].groups ? w.sides[0].groups : w.sides[1].groups;
  if (groups == 0) return cudaSuccess;
  // Few groups: smaller blocks, so that more multiprocessors have one.
  const int64_t threads = groups < (int64_t{1} << 17) ? 64 : kNvfp4Threads;
  const int64_t tile = threads * kNvfp4GroupsInFlight;
  const int64_t tiles = (groups + tile - 1) / tile;
  const dim3 grid(static_cast<unsigned>(tiles < INT32_MAX ? tiles : INT32_MAX), 2);
  nvfp4_writer_kernel<T, kWide><<<grid, static_cast<unsigned>(threads), 0, stream>>>(w);
  return cudaGetLastError();
}

// Whether groups are loaded and stored as a whole: everything else about pages is a multiple of 8.
inline bool has_wide_groups(const Nvfp4WriterParams& p) {
  const int64_t src_bytes = element_bytes_of(p.dtype);
  Alignment src;
  Alignment cache;
  for (const Nvfp4Side& s : {p.key, p.value}) {
    src.with(s.src).with(s.src_token_stride * src_bytes);
    if (p.heads > 1) src.with(s.src_head_stride * src_bytes);
    cache.with(s.cache).with(s.block_stride);
  }
  return src.allows(16) && cache.allows(static_cast<int>(kNvfp4GroupBytes));
}

// Kernels: 3 dtypes x 2 widths = 6.
inline cudaError_t launch_nvfp4_writer(const Nvfp4WriterParams& p, const SkipReport& report,
                                       cudaStream_t stream) {
  Nvfp4Writer w{
      .sides = {nvfp4_side_writer(p.key, p), nvfp4_side_writer(p.value, p)},
      .slots = Slots(p, report),
  };
  w.sides[w.sides[0].groups > 0 ? 0 : 1].reports = true;
  return with_element(p.dtype, [&](auto element) {
    using T = decltype(element);
    return has_wide_groups(p) ? launch_nvfp4_kernel<T, true>(w, stream)
                              : launch_nvfp4_kernel<T, false>(w, stream);
  });
}

}  // namespace kvops::kernels
