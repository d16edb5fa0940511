// Writes heads of tokens into pages that hold whole heads, keys and values alike.
// Launched by cuda::reshape_and_cache_flash: units of 16 bytes of input, narrower ones where
// addresses or strides ask for them, single elements where there are too many tokens or slots.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cache/cuda/kernels/column_side.cuh"
#include "cache/cuda/kernels/few_tokens.cuh"
#include "cache/cuda/kernels/moved_side.cuh"
#include "cache/cuda/kernels/movers.cuh"
#include "cache/params.h"
#include "common/cuda/indices.cuh"
#include "common/cuda/launch.cuh"
#include "common/cuda/slots.cuh"

namespace kvops::kernels {

inline constexpr int kFlashThreads = 128;

// Thread blocks are (columns, tokens), of key and value alike; if the columns are too many, `parts`
// thread blocks share tokens.
struct FlashWriter {
  ColumnSide key;
  ColumnSide value;
  Slots<NarrowIndices> slots;
  NarrowDivisor parts;
};

// A column of one of the sides.
template <class Mover>
struct FlashColumn {
  using In = typename Mover::In;
  using Out = typename Mover::Out;

  const ColumnSide& side;
  const char* from;
  char* to;
  Mover mover;
  bool exists;

  __device__ __forceinline__ FlashColumn(const ColumnSide& side, uint32_t column)
      : FlashColumn(side, column, side.units_per_head.divide(column)) {}

  __device__ __forceinline__ In load(uint32_t token) const {
    return *reinterpret_cast<const In*>(from + token * side.src_token_stride);
  }
  __device__ __forceinline__ void store(uint32_t block, uint32_t offset, const In& in) const {
    char* token = to + block * side.block_stride + offset * side.offset_stride;
    store_words(reinterpret_cast<Out*>(token), mover(in));
  }

 private:
  __device__ __forceinline__ FlashColumn(const ColumnSide& side, uint32_t column,
                                         const Divided<uint32_t>& at)
      : side(side),
        from(side.src + at.quotient * side.src_head_stride + uint64_t{at.remainder} * sizeof(In)),
        to(side.cache + at.quotient * side.head_stride + at.remainder * side.unit_stride),
        mover(Mover::kScales && column < side.columns ? side.scale[at.quotient * side.scale_stride]
                                                      : 1.0f),
        exists(column < side.columns) {}
};

// A thread moves a column of kTokens tokens, their keys and their values: what the slots take is
// shared, and loads of both are under way.
template <uint32_t kTokens, class Mover>
__global__ void __launch_bounds__(kFlashThreads)
    reshape_and_cache_flash_kernel(const __grid_constant__ FlashWriter w) {
  using In = typename Mover::In;
  const auto [token_block, part] = w.parts.divide(blockIdx.x);
  const uint32_t first = token_block * (blockDim.y * kTokens) + threadIdx.y;
  const uint32_t column = part * blockDim.x + threadIdx.x;
  if (first >= w.slots.tokens || column >= max(w.key.columns, w.value.columns)) return;
  const FlashColumn<Mover> key(w.key, column);
  const FlashColumn<Mover> value(w.value, column);
  int64_t slots[kTokens];
  In keys[kTokens];
  In values[kTokens];
#pragma unroll
  for (uint32_t j = 0; j < kTokens; ++j) {
    const uint32_t token = first + j * blockDim.y;
    slots[j] = -1;
    if (j > 0 && token >= w.slots.tokens) continue;
    slots[j] = w.slots.of_tokens[token];
    if (key.exists) keys[j] = key.load(token);
    if (value.exists) values[j] = value.load(token);
  }
  // Or compilers would not read keys and values before they know that the slots are written.
  __syncwarp();
#pragma unroll
  for (uint32_t j = 0; j < kTokens; ++j) {
    if (!w.slots.is_written(slots[j])) continue;
    const auto [block, offset] = w.slots.split(slots[j]);
    if (key.exists) key.store(block, offset, keys[j]);
    if (value.exists) value.store(block, offset, values[j]);
  }
  if (column != 0) return;
  // Last, when no call can take registers from what is still to be stored.
#pragma unroll
  for (uint32_t j = 0; j < kTokens; ++j) {
    if (!w.slots.is_written(slots[j])) w.slots.report(first + j * blockDim.y, slots[j]);
  }
}

// Few tokens: a thread moves a column of one side of a token, by less code, which all has to be
// fetched. If kSeveral, thread blocks take whole tokens, several of them.
template <bool kSeveral, class Mover>
__global__ void __launch_bounds__(kFewThreads)
    reshape_and_cache_flash_few_kernel(const __grid_constant__ FewTokensWriter w) {
  const bool is_second = blockIdx.y >= w.first_parts;
  const uint32_t part = blockIdx.y - (is_second ? w.first_parts : 0);
  const uint32_t token = kSeveral ? blockIdx.x * blockDim.y + threadIdx.y : blockIdx.x;
  if (kSeveral && token >= w.slots.tokens) return;
  const uint32_t column = kSeveral ? threadIdx.x : part * kFewThreads + threadIdx.x;
  move_columns<1, Mover>(is_second ? w.second : w.first, w, token, column);
}

// Single elements, of any number of tokens and slots, one side after the other.
struct FlashElemsWriter {
  MovedSide sides[2];
  Slots<WideIndices> slots;
  uint32_t first_tiles;
};

template <class Mover>
__global__ void __launch_bounds__(kFlashThreads)
    reshape_and_cache_flash_elems_kernel(const __grid_constant__ FlashElemsWriter w) {
  const SideTile at = side_tile(w.first_tiles);
  move_side<kManyTokens, Mover>(w.sides[at.side], w.slots, at.tile);
}

// ---- launch

struct FlashGrid {
  int64_t columns;  // threads of a block along x
  int64_t tokens;   // and along y
  int64_t parts;
  int64_t blocks;

  FlashGrid(const CacheWriterParams& p, int64_t unit_elems, int64_t thread_tokens) {
    const int64_t most =
        std::max(p.key.head_size, p.value.head_size) / unit_elems * std::max(p.heads, int64_t{1});
    parts = std::max((most + kFlashThreads - 1) / kFlashThreads, int64_t{1});
    columns = std::max(parts > 1 ? int64_t{kFlashThreads} : most, int64_t{1});
    tokens = kFlashThreads / columns;
    const int64_t block_tokens = tokens * thread_tokens;
    blocks = parts > INT32_MAX ? INT64_MAX : (p.tokens + block_tokens - 1) / block_tokens * parts;
  }
};

// About as many as a large GPU has room for at once, so that none has to wait for another one.
inline constexpr int64_t kFewBlocks = 2048;
inline constexpr int64_t kVeryManyBlocks = 32768;

// Tokens of a thread between these two; otherwise it should have two loads under way rather than
// four. Units that are two loads count twice.
template <class Mover>
inline constexpr int kFlashTokens = sizeof(typename Mover::In) > 16 ? 1 : 2;

template <class Mover>
bool can_count(const CacheWriterParams& p) {
  return NarrowIndices::can_count(p.tokens, p.num_slots) &&
         FlashGrid(p, Mover::kElems, 1).blocks <= INT32_MAX;
}

template <class Mover>
cudaError_t launch_flash_columns(const CacheWriterParams& p, const SkipReport& report,
                                 cudaStream_t stream) {
  const int64_t single_blocks = FlashGrid(p, Mover::kElems, 1).blocks;
  const bool single = single_blocks <= kFewBlocks || single_blocks > kVeryManyBlocks;
  const FlashGrid grid(p, Mover::kElems, single ? 1 : kFlashTokens<Mover>);
  const FlashWriter w{
      .key = column_side<Mover>(p.key, p),
      .value = column_side<Mover>(p.value, p),
      .slots = {p, report},
      .parts = NarrowDivisor(grid.parts),
  };
  const dim3 threads(static_cast<unsigned>(grid.columns), static_cast<unsigned>(grid.tokens));
  const auto kernel = single ? reshape_and_cache_flash_kernel<1, Mover>
                             : reshape_and_cache_flash_kernel<kFlashTokens<Mover>, Mover>;
  return launch_kernel(kernel, static_cast<unsigned>(grid.blocks), threads, stream, w);
}

template <class Mover>
cudaError_t launch_flash_writer(const CacheWriterParams& p, const SkipReport& report,
                                cudaStream_t stream) {
  const int64_t columns[2] = {p.key.head_size / Mover::kElems * p.heads,
                              p.value.head_size / Mover::kElems * p.heads};
  const bool several = std::max(columns[0], columns[1]) <= kFewThreads / 2;
  const FewTokensGrid grid(p, columns[0], 1, columns[1], several);
  if (!grid.fits(p, kFewBlocks)) return launch_flash_columns<Mover>(p, report, stream);
  const auto kernel = several ? reshape_and_cache_flash_few_kernel<true, Mover>
                              : reshape_and_cache_flash_few_kernel<false, Mover>;
  return launch_few_tokens<Mover, Mover>(kernel, grid, p.key, p.value, p, report, stream);
}

template <class Mover>
cudaError_t launch_flash_elems(const CacheWriterParams& p, const SkipReport& report,
                               cudaStream_t stream) {
  FlashElemsWriter w{
      .sides = {moved_side(p.key, p, Mover::kElems, kFlashThreads, kManyTokens, 0),
                moved_side(p.value, p, Mover::kElems, kFlashThreads, kManyTokens, 0)},
      .slots = {p, report},
      .first_tiles = 0,
  };
  return launch_both_sides(reshape_and_cache_flash_elems_kernel<Mover>, w, kFlashThreads, stream);
}

template <class Mover>
bool can_move(const CacheWriterParams& p) {
  if ((p.key.head_size | p.value.head_size) % Mover::kElems != 0) return false;
  if (!can_count<Mover>(p)) return false;
  const int64_t bytes = stored_bytes_of(p.dtype, p.kind);
  Alignment src;
  Alignment cache;
  for (const CacheSide& s : {p.key, p.value}) {
    src.with(source_alignment(s, p));
    cache.with(s.cache).with(s.block_stride * bytes).with(s.offset_stride * bytes);
    if (p.heads > 1) cache.with(s.head_stride * bytes);
  }
  return src.allows(alignof(typename Mover::In)) && cache.allows(alignof(typename Mover::Out));
}

// Launches the first of the movers, wide ones first, whose units addresses, strides and numbers
// allow; the last one moves single elements.
template <class Mover, class... Narrower>
cudaError_t launch_widest(const CacheWriterParams& p, const SkipReport& report,
                          cudaStream_t stream) {
  if constexpr (sizeof...(Narrower) == 0) {
    return launch_flash_elems<Mover>(p, report, stream);
  } else {
    return can_move<Mover>(p) ? launch_flash_writer<Mover>(p, report, stream)
                              : launch_widest<Narrower...>(p, report, stream);
  }
}

// Kernels: two for few tokens, and two, or one for units of two loads, for many, of 3 dtypes x 2
// formats and 3 widths of copies; one of single elements for each of 3 dtypes x 2 formats and 2
// widths.
inline cudaError_t launch_reshape_and_cache_flash(const CacheWriterParams& p,
                                                  const SkipReport& report, cudaStream_t stream) {
  if (p.kind != CacheKind::kAuto) {
    return with_quantized(p.dtype, p.kind, [&]<class Src, class Fp8>(Src, Fp8) {
      using Wide = Quantizer<Src, Fp8, kWideElems>;
      using Single = Quantizer<Src, Fp8, 1>;
      if constexpr (kWidestElems<Src> > kWideElems) {
        using Widest = Quantizer<Src, Fp8, kWidestElems<Src>>;
        return launch_widest<Widest, Wide, Single>(p, report, stream);
      } else {
        return launch_widest<Wide, Single>(p, report, stream);
      }
    });
  }
  if (element_bytes_of(p.dtype) == 4) {
    return launch_widest<Copier<uint32_t, 4>, Copier<uint32_t, 1>>(p, report, stream);
  }
  return launch_widest<Copier<uint16_t, 8>, Copier<uint16_t, 2>, Copier<uint16_t, 1>>(p, report,
                                                                                      stream);
}

}  // namespace kvops::kernels
