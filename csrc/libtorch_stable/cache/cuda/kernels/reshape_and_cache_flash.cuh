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

// Thread blocks are (columns, tokens), of key and value alike; if the columns are too many, they
// are shared by the blocks of a grid along x. Those along y, then z, take further tokens: neither
// takes a division. Places in both caches are those of the key.
struct FlashWriter {
  ColumnSide key;
  ColumnSide value;
  Slots<NarrowIndices> slots;
};

// A thread moves a column of kTokens tokens, their keys and their values: what the slots take is
// shared, and loads of both are under way.
template <uint32_t kTokens, class Mover>
__global__ void __launch_bounds__(kFlashThreads)
    reshape_and_cache_flash_kernel(const __grid_constant__ FlashWriter w) {
  using In = typename Mover::In;
  using Out = typename Mover::Out;
  const uint32_t token_block = blockIdx.z * gridDim.y + blockIdx.y;
  const uint32_t first = token_block * (blockDim.y * kTokens) + threadIdx.y;
  const uint32_t column = blockIdx.x * blockDim.x + threadIdx.x;
  if (first >= w.slots.tokens || column >= w.key.columns) return;
  const auto [head, unit] = w.key.units_per_head.divide(column);
  const char* key_from = w.key.src + w.key.in_token<In>(head, unit);
  const char* value_from = w.value.src + w.value.in_token<In>(head, unit);
  int64_t slots[kTokens];
  In keys[kTokens];
  In values[kTokens];
#pragma unroll
  for (uint32_t j = 0; j < kTokens; ++j) {
    const uint32_t token = first + j * blockDim.y;
    slots[j] = -1;
    if (j > 0 && token >= w.slots.tokens) continue;
    slots[j] = w.slots.of_tokens[token];
    keys[j] = *reinterpret_cast<const In*>(key_from + uint64_t{token} * w.key.src_token_stride);
    values[j] =
        *reinterpret_cast<const In*>(value_from + uint64_t{token} * w.value.src_token_stride);
  }
  const auto mover_of = [head = head](const ColumnSide& side) {
    return Mover(Mover::kScales ? side.scale[head * side.scale_stride] : 1.0f);
  };
  const Mover move_key = mover_of(w.key);
  const Mover move_value = mover_of(w.value);
  const uint64_t in_slot = w.key.in_slot(head, unit);
  // Or compilers would not read keys and values before they know that the slots are written.
  __syncwarp();
#pragma unroll
  for (uint32_t j = 0; j < kTokens; ++j) {
    if (!w.slots.is_written(slots[j])) continue;
    const int64_t place = in_slot + w.key.slot_places.place(w.slots, slots[j]);
    store_words(reinterpret_cast<Out*>(w.key.cache + place), move_key(keys[j]));
    store_words(reinterpret_cast<Out*>(w.value.cache + place), move_value(values[j]));
  }
  if (column != 0) return;
  // Last, when no call can take registers from what is still to be stored.
#pragma unroll
  for (uint32_t j = 0; j < kTokens; ++j) {
    if (!w.slots.is_written(slots[j])) w.slots.report(first + j * blockDim.y, slots[j]);
  }
}

// Keys and values whose caches, or sizes, differ: a thread moves a column of one side of a token.
template <class Mover>
__global__ void __launch_bounds__(kFewThreads)
    reshape_and_cache_flash_unlike_kernel(const __grid_constant__ FewTokensWriter w) {
  const bool is_second = blockIdx.y >= w.first_parts;
  const uint32_t part = blockIdx.y - (is_second ? w.first_parts : 0);
  move_columns<1, Mover>(is_second ? w.second : w.first, w, blockIdx.x,
                         part * kFewThreads + threadIdx.x);
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

inline constexpr int64_t kMaxGridY = 65535;

// Whether places in the value's cache are those of the key's.
inline bool are_alike(const CacheWriterParams& p) {
  const CacheSide& k = p.key;
  const CacheSide& v = p.value;
  return k.head_size == v.head_size && k.block_stride == v.block_stride &&
         k.offset_stride == v.offset_stride && (p.heads <= 1 || k.head_stride == v.head_stride);
}

// About as many as a large GPU has room for at once: if there are fewer, threads take one token, so
// that more multiprocessors have work.
inline constexpr int64_t kFewBlocks = 2048;

// Tokens of a thread otherwise. Units that are two loads count twice.
template <class Mover>
inline constexpr int kFlashTokens = sizeof(typename Mover::In) > 16 ? 1 : 2;

template <class Mover>
cudaError_t launch_flash_alike(const CacheWriterParams& p, const SkipReport& report,
                               cudaStream_t stream) {
  const FlashWriter w{
      .key = column_side<Mover>(p.key, p),
      .value = column_side<Mover>(p.value, p),
      .slots = {p, report},
  };
  const int64_t columns = w.key.columns;
  const int64_t lanes = std::clamp(columns, int64_t{1}, int64_t{kFlashThreads});
  const int64_t parts = (columns + lanes - 1) / lanes;
  const int64_t rows = kFlashThreads / lanes;
  const auto token_blocks_of = [&](int64_t thread_tokens) {
    return (p.tokens + rows * thread_tokens - 1) / (rows * thread_tokens);
  };
  const bool few = token_blocks_of(1) * parts <= kFewBlocks;
  const int64_t token_blocks = token_blocks_of(few ? 1 : kFlashTokens<Mover>);
  if (parts == 0 || token_blocks == 0) return cudaSuccess;
  const int64_t layers = (token_blocks + kMaxGridY - 1) / kMaxGridY;
  const dim3 blocks(static_cast<unsigned>(parts),
                    static_cast<unsigned>((token_blocks + layers - 1) / layers),
                    static_cast<unsigned>(layers));
  const dim3 threads(static_cast<unsigned>(lanes), static_cast<unsigned>(rows));
  const auto kernel = few ? reshape_and_cache_flash_kernel<1, Mover>
                          : reshape_and_cache_flash_kernel<kFlashTokens<Mover>, Mover>;
  return launch_kernel(kernel, blocks, threads, stream, w);
}

template <class Mover>
FewTokensGrid unlike_grid(const CacheWriterParams& p) {
  return {p, p.key.head_size / Mover::kElems * p.heads, 1,
          p.value.head_size / Mover::kElems * p.heads};
}

template <class Mover>
cudaError_t launch_flash_writer(const CacheWriterParams& p, const SkipReport& report,
                                cudaStream_t stream) {
  if (are_alike(p)) return launch_flash_alike<Mover>(p, report, stream);
  return launch_few_tokens<Mover, Mover>(reshape_and_cache_flash_unlike_kernel<Mover>,
                                         unlike_grid<Mover>(p), p.key, p.value, p, report, stream);
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
  if (!can_count_columns<Mover>(p.key, p) || !can_count_columns<Mover>(p.value, p)) return false;
  // No other launch has more blocks.
  if (!unlike_grid<Mover>(p).fits(p, INT32_MAX)) return false;
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

// Kernels: three, or two for units of two loads, for each of 3 dtypes x 2 formats and 3 widths of
// copies; one of single elements for each of 3 dtypes x 2 formats and 2 widths.
inline cudaError_t launch_reshape_and_cache_flash(const CacheWriterParams& p,
                                                  const SkipReport& report, cudaStream_t stream) {
  if (p.kind != CacheKind::kAuto) {
    return with_quantized(p.dtype, p.kind, [&]<class Src, class Fp8>(Src, Fp8) {
      return launch_widest<Quantizer<Src, Fp8, kWideElems>, Quantizer<Src, Fp8, 1>>(p, report,
                                                                                    stream);
    });
  }
  if (element_bytes_of(p.dtype) == 4) {
    return launch_widest<Copier<uint32_t, 4>, Copier<uint32_t, 1>>(p, report, stream);
  }
  return launch_widest<Copier<uint16_t, 8>, Copier<uint16_t, 2>, Copier<uint16_t, 1>>(p, report,
                                                                                      stream);
}

}  // namespace kvops::kernels
