// One of key and value as columns: a column is a unit of one of the heads. Counted by 32 bits.
// Used by the kernels of the cache writers in which a thread moves a column of its tokens.
#pragma once

#include <cstdint>

#include "cache/cuda/kernels/movers.cuh"
#include "cache/params.h"
#include "common/cuda/divisor.cuh"

namespace kvops::kernels {

// Strides in bytes.
struct ColumnSide {
  const char* src;
  int64_t src_token_stride;
  int64_t src_head_stride;
  char* cache;
  int64_t block_stride;
  int64_t offset_stride;
  int64_t head_stride;
  int64_t unit_stride;
  const float* scale;
  int64_t scale_stride;  // elements
  uint32_t columns;
  NarrowDivisor units_per_head;
};

// ---- launch

// Units are those of the cache, or parts of whole heads.
template <class Mover>
ColumnSide column_side(const CacheSide& s, const CacheWriterParams& p) {
  const int64_t elem_bytes = element_bytes_of(p.dtype);
  const int64_t stored_bytes = stored_bytes_of(p.dtype, p.kind);
  const int64_t units_per_head = s.head_size / Mover::kElems;
  const int64_t unit_stride = s.unit_elems == Mover::kElems ? s.unit_stride : Mover::kElems;
  return {
      .src = s.src,
      .src_token_stride = s.src_token_stride * elem_bytes,
      .src_head_stride = s.src_head_stride * elem_bytes,
      .cache = s.cache,
      .block_stride = s.block_stride * stored_bytes,
      .offset_stride = s.offset_stride * stored_bytes,
      .head_stride = s.head_stride * stored_bytes,
      .unit_stride = unit_stride * stored_bytes,
      .scale = s.scale,
      .scale_stride = p.scale_stride,
      .columns = static_cast<uint32_t>(units_per_head * p.heads),
      .units_per_head = NarrowDivisor(units_per_head),
  };
}

}  // namespace kvops::kernels
