// Quantises tokens into nvfp4 pages, groups of 16 elements at a time. Bytes are those of
// cache/nvfp4.h.
// Launched by cuda::write_nvfp4_pages; falls back to single elements and bytes where it must.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cache/cuda/kernels/movers.cuh"
#include "cache/cuda/kernels/token_units.cuh"
#include "cache/nvfp4.h"
#include "cache/params.h"
#include "common/cuda/alignment.h"
#include "common/cuda/slots.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

// One of key and value; a unit is a group of 16 elements. Strides of the cache in bytes.
struct Nvfp4SideWriter {
  UnitWalk walk;
  const float* scale;
  uint8_t* cache;
  NarrowDivisor groups_per_quarter;  // of a head
  int64_t block_stride;
  int64_t data_offset_stride;
  int64_t data_head_stride;
  int64_t scales_start;
  int64_t scales_offset_stride;
  int64_t scales_head_stride;
  bool scales_in_tiles;
};

template <bool kWide>
struct Nvfp4Writer {
  Nvfp4SideWriter sides[2];
  Slots<std::conditional_t<kWide, NarrowIndices, WideIndices>> slots;
  uint32_t first_tiles;
};

inline constexpr int kNvfp4Threads = 256;

// A group in accesses of 16 bytes, or in single elements.
template <class T, bool kWide>
struct Nvfp4Loads {
  using Access = std::conditional_t<kWide, uint4, T>;
  Access of[kNvfp4GroupElems * sizeof(T) / sizeof(Access)];
};

// Two words of 8 codes each, and the scale.
struct Nvfp4Quantized {
  uint32_t words[2];
  e4m3_t scale;
};

// What groups of the same side are quantised by.
struct Nvfp4Factors {
  float global;
  float inverse;

  __device__ explicit Nvfp4Factors(float scale)
      : global(nvfp4_global_factor(scale)), inverse(1.0f / global) {}
};

template <class T>
__device__ __forceinline__ Elems<float, kNvfp4GroupElems> widen_group(
    const Elems<T, kNvfp4GroupElems>& group) {
  if constexpr (sizeof(T) == 4) {
    return __builtin_bit_cast(Elems<float, kNvfp4GroupElems>, group);
  } else {
    constexpr int kElems = kNvfp4GroupElems;
    return widen_packed<T, kElems>(__builtin_bit_cast(Packed<T, kElems>, group));
  }
}

template <class T>
__device__ __forceinline__ Nvfp4Quantized
quantize_nvfp4_group(const Elems<T, kNvfp4GroupElems>& group, const Nvfp4Factors& factors) {
  const auto x = widen_group(group);
  float amax = 0.0f;
#pragma unroll
  for (int i = 0; i < kNvfp4GroupElems; ++i) amax = fmaxf(amax, fabsf(x.of[i]));  // ignores NaN
  Nvfp4Quantized result;
  result.scale = narrow_as(nvfp4_group_scale(amax, factors.global), e4m3_t{});
  const float multiplier =
      nvfp4_multiplier(widen_pair(result.scale.bits, e4m3_t{}).x, factors.inverse);
  // By sums instead of logical operations, of which there would be too many: what the bases of all
  // codes add up to is taken away at the end. Signs come with the bits below them, which are
  // masked then; the product of NaN is positive here.
  constexpr uint32_t kSumOfBases = kE2m1Base * 0x11111111u;
  constexpr uint32_t kSigns = 0x88888888u;
#pragma unroll
  for (int word = 0; word < 2; ++word) {
    uint32_t magnitudes = 0;
    uint32_t signs = 0;
#pragma unroll
    for (int i = 7; i >= 0; --i) {
      const float scaled = __fmul_rn(x.of[word * 8 + i], multiplier);
      magnitudes = magnitudes * 16 + e2m1_magnitude_bits(scaled);
      signs = __funnelshift_l(float_bits(scaled), signs, 4);
    }
    result.words[word] = (magnitudes - kSumOfBases) | (signs & kSigns);
  }
  return result;
}

// The places of one group of a head in a page, of which those of tokens are.
struct Nvfp4Column {
  uint8_t* data;
  uint8_t* scales;  // of the head, all groups
  int64_t group;    // or what there is of it within its quarter of the head, and the latter
  int64_t quarter;

  __device__ Nvfp4Column(const Nvfp4SideWriter& side, uint32_t head, uint32_t group_of_head)
      : data(side.cache + head * side.data_head_stride +
             uint64_t{group_of_head} * kNvfp4GroupBytes),
        scales(side.cache + side.scales_start + head * side.scales_head_stride),
        group(group_of_head),
        quarter(0) {
    if (!side.scales_in_tiles) return;
    const auto [quotient, rest] = side.groups_per_quarter.divide(group_of_head);
    quarter = quotient;
    group = rest;
  }
};

template <bool kWide, class Count>
__device__ __forceinline__ void store_nvfp4_group(const Nvfp4SideWriter& side,
                                                  const Nvfp4Column& column, Count block,
                                                  Count offset, const Nvfp4Quantized& quantized) {
  const int64_t page = block * side.block_stride;
  uint8_t* data = column.data + page + offset * side.data_offset_stride;
  if constexpr (kWide) {
    store_words(reinterpret_cast<uint2*>(data), make_uint2(quantized.words[0], quantized.words[1]));
  } else {
#pragma unroll
    for (int i = 0; i < kNvfp4GroupBytes; ++i) {
      data[i] = static_cast<uint8_t>(quantized.words[i / 4] >> (i % 4 * 8));
    }
  }
  const Nvfp4Place place = side.scales_in_tiles
                               ? nvfp4_tiled_place(offset, column.quarter, column.group)
                               : Nvfp4Place{offset, column.group};
  column.scales[page + place.offset * side.scales_offset_stride + place.group] =
      quantized.scale.bits;
}

template <class T, bool kWide>
__global__ void __launch_bounds__(kNvfp4Threads)
    nvfp4_writer_kernel(const __grid_constant__ Nvfp4Writer<kWide> w) {
  using In = Nvfp4Loads<T, kWide>;
  const SideTile at = side_tile(w.first_tiles);
  const Nvfp4SideWriter& side = w.sides[at.side];
  move_units<kManyTokens, In>(side.walk, w.slots, at.tile, [&](uint32_t head, uint32_t group) {
    const Nvfp4Factors factors(*side.scale);
    const Nvfp4Column column(side, head, group);
    return [=, &side](auto block, auto offset, const In& in) {
      const auto elems = __builtin_bit_cast(Elems<T, kNvfp4GroupElems>, in);
      store_nvfp4_group<kWide>(side, column, block, offset, quantize_nvfp4_group(elems, factors));
    };
  });
}

// ---- launch

inline Nvfp4SideWriter nvfp4_side_writer(const Nvfp4Side& s, const Nvfp4WriterParams& p,
                                         int threads) {
  const int64_t src_bytes = element_bytes_of(p.dtype);
  const int64_t groups_per_head = s.head_size / kNvfp4GroupElems;
  return {
      .walk = unit_walk({.src = s.src,
                         .token_stride_bytes = s.src_token_stride * src_bytes,
                         .head_stride_bytes = s.src_head_stride * src_bytes,
                         .units_per_head = groups_per_head},
                        p.tokens, p.heads, threads, kManyTokens, 0),
      .scale = s.scale,
      .cache = s.cache,
      .groups_per_quarter = NarrowDivisor(groups_per_head / 4),
      .block_stride = s.block_stride,
      .data_offset_stride = s.data_offset_stride,
      .data_head_stride = s.data_head_stride,
      .scales_start = s.scales_start,
      .scales_offset_stride = s.scales_offset_stride,
      .scales_head_stride = s.scales_head_stride,
      .scales_in_tiles = s.scales_in_tiles,
  };
}

template <class T, bool kWide>
cudaError_t launch_nvfp4_kernel(const Nvfp4WriterParams& p, const SkipReport& report,
                                cudaStream_t stream) {
  // Few groups: smaller blocks, so that more multiprocessors have one.
  const int64_t groups =
      (p.key.head_size + p.value.head_size) / kNvfp4GroupElems * p.heads * p.tokens;
  const int threads = groups < (int64_t{1} << 18) ? 64 : kNvfp4Threads;
  Nvfp4Writer<kWide> w{
      .sides = {nvfp4_side_writer(p.key, p, threads), nvfp4_side_writer(p.value, p, threads)},
      .slots = {p, report},
      .first_tiles = 0,
  };
  return launch_both_sides(nvfp4_writer_kernel<T, kWide>, w, threads, stream);
}

// Whether groups are loaded and stored as a whole: everything else about pages is a multiple of 8.
// There may be too many, too.
inline bool has_wide_groups(const Nvfp4WriterParams& p) {
  const int64_t src_bytes = element_bytes_of(p.dtype);
  Alignment src;
  Alignment cache;
  for (const Nvfp4Side& s : {p.key, p.value}) {
    src.with(s.src).with(s.src_token_stride * src_bytes);
    if (p.heads > 1) src.with(s.src_head_stride * src_bytes);
    cache.with(s.cache).with(s.block_stride);
  }
  return src.allows(16) && cache.allows(static_cast<int>(kNvfp4GroupBytes)) &&
         NarrowIndices::can_count(p.tokens, p.num_slots);
}

// Kernels: 3 dtypes x 2 widths = 6.
inline cudaError_t launch_nvfp4_writer(const Nvfp4WriterParams& p, const SkipReport& report,
                                       cudaStream_t stream) {
  return with_element(p.dtype, [&](auto element) {
    using T = decltype(element);
    return has_wide_groups(p) ? launch_nvfp4_kernel<T, true>(p, report, stream)
                              : launch_nvfp4_kernel<T, false>(p, report, stream);
  });
}

}  // namespace kvops::kernels
