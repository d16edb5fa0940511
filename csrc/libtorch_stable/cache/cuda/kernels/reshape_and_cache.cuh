// Writes tokens into pages whose heads are split into units: keys unit by unit, values, whose units
// are single elements, by transposing neighbours. A few tokens, as in decode, are scattered anyway:
// their values are stored element by element, without a detour.
// Launched by cuda::reshape_and_cache; single elements are also what it falls back to.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cache/cuda/kernels/few_tokens.cuh"
#include "cache/cuda/kernels/moved_side.cuh"
#include "cache/cuda/kernels/movers.cuh"
#include "cache/cuda/kernels/transposed_side.cuh"
#include "cache/params.h"
#include "common/cuda/slots.cuh"

namespace kvops::kernels {

inline constexpr int kSplitThreads = 128;
inline constexpr int kSplitWarps = kSplitThreads / 32;

struct SplitWriter {
  MovedSide key;
  MovedSide value;
  Slots<WideIndices> slots;
  uint32_t first_tiles;  // of the values, whose stores take longest
};

template <class KeyMover, class ValueMover>
__global__ void __launch_bounds__(kSplitThreads)
    reshape_and_cache_kernel(const __grid_constant__ SplitWriter w) {
  const SideTile at = side_tile(w.first_tiles);
  if (at.side == 0) {
    move_side<kManyTokens, ValueMover, true>(w.value, w.slots, at.tile);
  } else {
    move_side<kManyTokens, KeyMover>(w.key, w.slots, at.tile);
  }
}

template <uint32_t kValues, class KeyMover, class ValueMover>
__global__ void __launch_bounds__(kFewThreads)
    reshape_and_cache_few_kernel(const __grid_constant__ FewTokensWriter w) {
  if (blockIdx.y < w.first_parts) {
    const uint32_t first = blockIdx.y * (kValues * kFewThreads) + threadIdx.x;
    move_columns<kValues, ValueMover>(w.first, w, blockIdx.x, first);
  } else {
    const uint32_t first = (blockIdx.y - w.first_parts) * kFewThreads + threadIdx.x;
    move_columns<1, KeyMover>(w.second, w, blockIdx.x, first);
  }
}

struct TransposingWriter {
  MovedSide key;
  TransposedSide value;
  Slots<WideIndices> slots;
  uint32_t first_tiles;  // of the values: those of scattered tokens should not be left at the end
};

// The transposition's registers leave room for few warps, which so need more loads under way.
template <class Mover>
inline constexpr int kManyKeyTokens = 64 / static_cast<int>(sizeof(typename Mover::In));

template <class KeyMover, class ValueMover>
__global__ void __launch_bounds__(kSplitThreads)
    reshape_and_cache_transposing_kernel(const __grid_constant__ TransposingWriter w) {
  const SideTile at = side_tile(w.first_tiles);
  if (at.side == 1) {
    move_side<kManyKeyTokens<KeyMover>, KeyMover>(w.key, w.slots, at.tile);
    return;
  }
  __shared__ TileOf<ValueMover> tiles[kSplitWarps];
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t index = at.tile * kSplitWarps + warp;
  if (index < w.value.tiles) transpose_tile<ValueMover>(tiles[warp], w.value, w.slots, index);
}

// ---- launch

// Neighbouring tokens of a thread block: the units of their keys are neighbours in the cache, and
// four of them are two sectors or more.
template <class Mover>
MovedSide split_side(const CacheSide& s, const CacheWriterParams& p, int tokens_per_thread) {
  return moved_side(s, p, Mover::kElems, kSplitThreads, tokens_per_thread,
                    Mover::kElems > 1 ? 2 : 0);
}

template <class KeyMover, class ValueMover>
cudaError_t launch_split_writer(const CacheWriterParams& p, const SkipReport& report,
                                cudaStream_t stream) {
  SplitWriter w{
      .key = split_side<KeyMover>(p.key, p, kManyTokens),
      .value = split_side<ValueMover>(p.value, p, kManyTokens),
      .slots = {p, report},
      .first_tiles = 0,
  };
  w.key.walk.reports = true;
  return launch_tiles(reshape_and_cache_kernel<KeyMover, ValueMover>, w, w.value.walk.tiles,
                      w.key.walk.tiles, kSplitThreads, stream);
}

template <class KeyMover, class ValueMover>
cudaError_t launch_transposing_writer(const CacheWriterParams& p, const SkipReport& report,
                                      cudaStream_t stream) {
  TransposingWriter w{
      .key = split_side<KeyMover>(p.key, p, kManyKeyTokens<KeyMover>),
      .value = transposed_side(p.value, p, TileOf<ValueMover>::kColumns),
      .slots = {p, report},
      .first_tiles = 0,
  };
  w.key.walk.reports = true;
  if (w.value.tiles > INT32_MAX) return cudaErrorInvalidConfiguration;
  const int64_t value_blocks = (w.value.tiles + kSplitWarps - 1) / kSplitWarps;
  return launch_tiles(reshape_and_cache_transposing_kernel<KeyMover, ValueMover>, w, value_blocks,
                      w.key.walk.tiles, kSplitThreads, stream);
}

// Whether keys can be moved by a wide mover: its units are parts of the units of the cache.
template <class Mover>
bool has_wide_units(const CacheSide& s, const CacheWriterParams& p) {
  const int64_t bytes = stored_bytes_of(p.dtype, p.kind);
  Alignment cache;
  cache.with(s.cache).with(s.block_stride * bytes).with(s.group_stride * bytes);
  cache.with(s.offset_stride * bytes).with(s.unit_stride * bytes);
  if (p.heads > 1) cache.with(s.head_stride * bytes);
  return s.unit_elems % Mover::kElems == 0 && cache.allows(alignof(typename Mover::Out));
}

// So many tokens, or fewer, are taken for scattered.
inline constexpr int64_t kScatteredTokens = 256;

// Values of a thread then. Fewer than half as many tokens have to use more multiprocessors.
inline constexpr uint32_t kManyScatteredValues = 8;
inline constexpr uint32_t kFewScatteredValues = 2;

template <class KeyMover>
FewTokensGrid few_split_grid(const CacheWriterParams& p, uint32_t values) {
  return {p, p.value.head_size * p.heads, values, p.key.head_size / KeyMover::kElems * p.heads};
}

template <class KeyMover, class Mover>
bool can_move_few(const CacheWriterParams& p) {
  return has_wide_units<KeyMover>(p.key, p) && has_few_units<KeyMover>(p.key, p, false) &&
         has_few_units<Mover>(p.value, p, true) &&
         few_split_grid<KeyMover>(p, kFewScatteredValues).fits(p, INT32_MAX);
}

template <uint32_t kValues, class KeyMover, class Mover>
cudaError_t launch_few_split(const CacheWriterParams& p, const SkipReport& report,
                             cudaStream_t stream) {
  return launch_few_tokens<Mover, KeyMover>(reshape_and_cache_few_kernel<kValues, KeyMover, Mover>,
                                            few_split_grid<KeyMover>(p, kValues), p.value, p.key, p,
                                            report, stream);
}

// Kernels: 5 for each of 2 widths of copies and 3 dtypes x 2 formats = 40.
template <class KeyMover, class WideMover, class Mover>
cudaError_t launch_movers(const CacheWriterParams& p, const SkipReport& report,
                          cudaStream_t stream) {
  const bool wide_keys =
      source_alignment(p.key, p).allows(16) && has_wide_units<WideMover>(p.key, p);
  if (!wide_keys) return launch_split_writer<Mover, Mover>(p, report, stream);
  if (p.tokens <= kScatteredTokens) {
    if (!can_move_few<KeyMover, Mover>(p)) {
      return launch_split_writer<WideMover, Mover>(p, report, stream);
    }
    return p.tokens <= kScatteredTokens / 2
               ? launch_few_split<kFewScatteredValues, KeyMover, Mover>(p, report, stream)
               : launch_few_split<kManyScatteredValues, KeyMover, Mover>(p, report, stream);
  }
  const bool transposes = has_wide_units<KeyMover>(p.key, p) && has_pieces(p.value, p) &&
                          source_alignment(p.value, p).allows(16) &&
                          p.value.head_size % WideMover::kElems == 0;
  return transposes ? launch_transposing_writer<KeyMover, WideMover>(p, report, stream)
                    : launch_split_writer<WideMover, Mover>(p, report, stream);
}

inline cudaError_t launch_reshape_and_cache(const CacheWriterParams& p, const SkipReport& report,
                                            cudaStream_t stream) {
  if (p.kind != CacheKind::kAuto) {
    return with_quantized(p.dtype, p.kind, [&]<class Src, class Fp8>(Src, Fp8) {
      return launch_movers<Quantizer<Src, Fp8, kWidestElems<Src>>, Quantizer<Src, Fp8, kWideElems>,
                           Quantizer<Src, Fp8, 1>>(p, report, stream);
    });
  }
  if (element_bytes_of(p.dtype) == 4) {
    using Wide = Copier<uint32_t, 4>;
    return launch_movers<Wide, Wide, Copier<uint32_t, 1>>(p, report, stream);
  }
  using Wide = Copier<uint16_t, 8>;
  return launch_movers<Wide, Wide, Copier<uint16_t, 1>>(p, report, stream);
}

}  // namespace kvops::kernels
