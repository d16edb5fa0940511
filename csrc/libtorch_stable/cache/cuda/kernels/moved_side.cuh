// One of key and value, moved unit by unit: read, converted, stored, each by one access.
// Used by reshape_and_cache_flash for both, and by reshape_and_cache for the side, or the call,
// whose elements it does not transpose.
#pragma once

#include <cstdint>

#include "cache/cuda/kernels/movers.cuh"
#include "cache/cuda/kernels/page_layout.cuh"
#include "cache/cuda/kernels/token_units.cuh"
#include "cache/params.h"
#include "common/cuda/alignment.h"
#include "common/cuda/slots.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

struct MovedSide {
  UnitWalk walk;
  PageLayout layout;
  const float* scale;
  int64_t scale_stride;
};

#if defined(__CUDACC__)
template <uint32_t kTokens, class Mover, bool kMayHaveGroups = false, class Indices>
__device__ __forceinline__ void move_side(const MovedSide& side, const Slots<Indices>& slots,
                                          uint32_t tile) {
  using Count = typename Indices::Count;
  using In = typename Mover::In;
  using Out = typename Mover::Out;
  move_units<kTokens, In>(side.walk, slots, tile, [&](uint32_t head, uint32_t unit) {
    char* column = side.layout.column(head, unit * Mover::kElems);
    const Mover mover(Mover::kScales ? side.scale[head * side.scale_stride] : 1.0f);
    return [&side, column, mover](Count block, Count offset, const In& in) {
      char* to = column + side.layout.template place<kMayHaveGroups>(block, offset);
      store_words(reinterpret_cast<Out*>(to), mover(in));
    };
  });
}
#endif

// ---- launch

// Units are of so many elements of `elem_bytes` in the input and of `stored_bytes` in the cache.
inline MovedSide moved_side(const CacheSide& s, const CacheWriterParams& p, int64_t unit_elems,
                            int threads, int tokens_per_thread, int neighbours_log2) {
  const int64_t elem_bytes = element_bytes_of(p.dtype);
  return {
      .walk = unit_walk({.src = s.src,
                         .token_stride_bytes = s.src_token_stride * elem_bytes,
                         .head_stride_bytes = s.src_head_stride * elem_bytes,
                         .units_per_head = s.head_size / unit_elems},
                        p.tokens, p.heads, threads, tokens_per_thread, neighbours_log2),
      .layout = PageLayout(s, p.block_size, stored_bytes_of(p.dtype, p.kind)),
      .scale = s.scale,
      .scale_stride = p.scale_stride,
  };
}

// What a unit's address in the input depends on.
inline Alignment source_alignment(const CacheSide& s, const CacheWriterParams& p) {
  const int64_t bytes = element_bytes_of(p.dtype);
  Alignment alignment;
  alignment.with(s.src).with(s.head_size * bytes).with(s.src_token_stride * bytes);
  // A single head's stride may be anything and is not used.
  if (p.heads > 1) alignment.with(s.src_head_stride * bytes);
  return alignment;
}

}  // namespace kvops::kernels
