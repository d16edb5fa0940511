// One of key and value as columns: a column is a unit of one of the heads. Columns are counted by
// 32 bits, strides likewise: each adds to an address by one instruction. Used by the kernels of the
// cache writers in which a thread moves a column of its tokens.
#pragma once

#include <cstdint>

#include "cache/cuda/kernels/movers.cuh"
#include "cache/params.h"
#include "common/cuda/divisor.cuh"
#include "common/cuda/indices.cuh"
#include "common/cuda/slots.cuh"

namespace kvops::kernels {

// Strides in bytes.
struct ColumnSide {
  const char* src;
  char* cache;
  const float* scale;
  uint32_t src_token_stride;
  uint32_t src_head_stride;
  SlotPlaces<NarrowIndices> slot_places;
  uint32_t head_stride;
  uint32_t unit_stride;
  uint32_t scale_stride;  // elements
  uint32_t columns;
  NarrowDivisor units_per_head;

#if defined(__CUDACC__)
  // Of a unit of a head: its place in a token of the input, and in a slot of the cache.
  template <class In>
  __device__ __forceinline__ uint64_t in_token(uint32_t head, uint32_t unit) const {
    return uint64_t{head} * src_head_stride + uint64_t{unit} * sizeof(In);
  }
  __device__ __forceinline__ uint64_t in_slot(uint32_t head, uint32_t unit) const {
    return uint64_t{head} * head_stride + uint64_t{unit} * unit_stride;
  }
#endif
};

// ---- launch

// Bytes between units of the cache, or between parts of whole heads.
template <class Mover>
int64_t unit_stride_bytes(const CacheSide& s, const CacheWriterParams& p) {
  const int64_t elems = s.unit_elems == Mover::kElems ? s.unit_stride : int64_t{Mover::kElems};
  return elems * stored_bytes_of(p.dtype, p.kind);
}

// Whether columns and strides are few and small enough.
template <class Mover>
bool can_count_columns(const CacheSide& s, const CacheWriterParams& p) {
  const int64_t elem_bytes = element_bytes_of(p.dtype);
  const int64_t stored_bytes = stored_bytes_of(p.dtype, p.kind);
  using Indices = NarrowIndices;
  // A single head's stride may be anything and is not used.
  if (p.heads > 1 && !(Indices::can_stride(s.src_head_stride * elem_bytes) &&
                       Indices::can_stride(s.head_stride * stored_bytes))) {
    return false;
  }
  return s.head_size / Mover::kElems * p.heads < NarrowDivisor::kEnd &&
         Indices::can_stride(s.src_token_stride * elem_bytes) &&
         Indices::can_stride(unit_stride_bytes<Mover>(s, p)) &&
         Indices::can_stride(s.block_stride * stored_bytes, s.offset_stride * stored_bytes,
                             p.block_size);
}

// Units are those of the cache, or parts of whole heads.
template <class Mover>
ColumnSide column_side(const CacheSide& s, const CacheWriterParams& p) {
  const int64_t elem_bytes = element_bytes_of(p.dtype);
  const int64_t stored_bytes = stored_bytes_of(p.dtype, p.kind);
  const int64_t units_per_head = s.head_size / Mover::kElems;
  return {
      .src = s.src,
      .cache = s.cache,
      .scale = s.scale,
      .src_token_stride = static_cast<uint32_t>(s.src_token_stride * elem_bytes),
      .src_head_stride = static_cast<uint32_t>(s.src_head_stride * elem_bytes),
      .slot_places = {s.block_stride * stored_bytes, s.offset_stride * stored_bytes, p.block_size},
      .head_stride = static_cast<uint32_t>(s.head_stride * stored_bytes),
      .unit_stride = static_cast<uint32_t>(unit_stride_bytes<Mover>(s, p)),
      .scale_stride = static_cast<uint32_t>(p.scale_stride),
      .columns = static_cast<uint32_t>(units_per_head * p.heads),
      .units_per_head = NarrowDivisor(units_per_head),
  };
}

}  // namespace kvops::kernels
