// Where the elements of a token lie in one of the caches; strides in bytes.
// Used by the kernels of the cache writers, whose launch functions make it of a CacheSide.
#pragma once

#include <cstdint>

#include "cache/params.h"
#include "common/cuda/divisor.cuh"

namespace kvops::kernels {

struct PageLayout {
  char* cache;
  int64_t elem_bytes;
  int64_t block_stride;
  int64_t group_stride;
  int64_t offset_stride;
  int64_t head_stride;
  int64_t unit_stride;
  Divisor group_tokens;
  NarrowDivisor unit_elems;
  bool has_groups;  // more than one in a block

  PageLayout(const CacheSide& s, int64_t block_size, int64_t elem_bytes)
      : cache(s.cache),
        elem_bytes(elem_bytes),
        block_stride(s.block_stride * elem_bytes),
        group_stride(s.group_stride * elem_bytes),
        offset_stride(s.offset_stride * elem_bytes),
        head_stride(s.head_stride * elem_bytes),
        unit_stride(s.unit_stride * elem_bytes),
        group_tokens(s.group_tokens, block_size),
        unit_elems(s.unit_elems),
        has_groups(s.group_tokens != block_size) {}

#if defined(__CUDACC__)
  // What place() of a token has to be added to.
  __device__ __forceinline__ char* column(uint32_t head, uint32_t elem) const {
    const auto [unit, in_unit] = unit_elems.divide(elem);
    return cache + head * head_stride + unit * unit_stride + in_unit * elem_bytes;
  }

  template <bool kMayHaveGroups, class Count>
  __device__ __forceinline__ int64_t place(Count block, Count offset) const {
    int64_t bytes = block * block_stride;
    if (kMayHaveGroups && has_groups) {
      const auto [group, in_group] = group_tokens.divide(offset);
      bytes += group * group_stride;
      offset = static_cast<Count>(in_group);
    }
    return bytes + offset * offset_stride;
  }
#endif
};

}  // namespace kvops::kernels
