// Writes heads of tokens into pages that hold whole heads, keys and values alike.
// Launched by cuda::reshape_and_cache_flash: units of 16 bytes of input, narrower ones where
// addresses or strides ask for them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "cache/cuda/kernels/few_tokens.cuh"
#include "cache/cuda/kernels/moved_side.cuh"
#include "cache/cuda/kernels/movers.cuh"
#include "cache/cuda/kernels/slots.cuh"
#include "cache/params.h"

namespace kvops::kernels {

inline constexpr int kFlashThreads = 128;

struct FlashWriter {
  MovedSide sides[2];
  Slots slots;
  uint32_t first_tiles;
};

template <class Mover>
__global__ void __launch_bounds__(kFlashThreads)
    reshape_and_cache_flash_kernel(const __grid_constant__ FlashWriter w) {
  const SideTile at = side_tile(w.first_tiles);
  move_side<kManyTokens, Mover>(w.sides[at.side], w.slots, at.tile);
}

// If kSeveral, thread blocks take whole tokens, several of them.
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

// ---- launch

template <class Mover>
cudaError_t launch_flash_kernel(const CacheWriterParams& p, const SkipReport& report,
                                cudaStream_t stream) {
  FlashWriter w{
      .sides = {moved_side(p.key, p, Mover::kElems, kFlashThreads, kManyTokens, 0),
                moved_side(p.value, p, Mover::kElems, kFlashThreads, kManyTokens, 0)},
      .slots = Slots(p, report),
      .first_tiles = 0,
  };
  return launch_both_sides(reshape_and_cache_flash_kernel<Mover>, w, kFlashThreads, stream);
}

// About as many as a large GPU has room for at once, so that none has to wait for another one.
inline constexpr int64_t kFewBlocks = 2048;

template <class Mover>
cudaError_t launch_flash_writer(const CacheWriterParams& p, const SkipReport& report,
                                cudaStream_t stream) {
  const int64_t columns[2] = {p.key.head_size / Mover::kElems * p.heads,
                              p.value.head_size / Mover::kElems * p.heads};
  const bool several = std::max(columns[0], columns[1]) <= kFewThreads / 2;
  const FewTokensGrid grid(p, columns[0], 1, columns[1], several);
  if (!grid.fits(p, kFewBlocks)) return launch_flash_kernel<Mover>(p, report, stream);
  const auto kernel = several ? reshape_and_cache_flash_few_kernel<true, Mover>
                              : reshape_and_cache_flash_few_kernel<false, Mover>;
  return launch_few_tokens<Mover, Mover>(kernel, grid, p.key, p.value, p, report, stream);
}

template <class Mover>
bool can_move(const CacheWriterParams& p) {
  if ((p.key.head_size | p.value.head_size) % Mover::kElems != 0) return false;
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

// Launches the first of the movers, wide ones first, whose units addresses and strides allow; the
// last one moves single elements.
template <class Mover, class... Narrower>
cudaError_t launch_widest(const CacheWriterParams& p, const SkipReport& report,
                          cudaStream_t stream) {
  if constexpr (sizeof...(Narrower) > 0) {
    if (!can_move<Mover>(p)) return launch_widest<Narrower...>(p, report, stream);
  }
  return launch_flash_writer<Mover>(p, report, stream);
}

// Kernels: one for many tokens and two for few, 3 or 2 for each of 3 dtypes x 2 formats and 5
// widths of copies = 63.
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
