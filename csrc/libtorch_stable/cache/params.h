// Parameters of the cache writers and of convert_fp8, CPU and CUDA alike: plain structs, filled by
// cache/validate. Strides are in elements of the tensor that they belong to; every pointer says
// its shape.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace kvops {

// One of key and value, and the cache that it goes into. Element d of a head goes to
//   block * block_stride + head * head_stride
//       + offset / group_tokens * group_stride + offset % group_tokens * offset_stride
//       + d / unit_elems * unit_stride + d % unit_elems.
struct CacheSide {
  const char* src;     // [>= tokens, heads, >= head_size], last dimension dense
  const float* scale;  // [1] or [heads], see scale_stride; null for CacheKind::kAuto
  char* cache;         // [blocks, ...]
  int64_t head_size;   // elements of a head that are written: a multiple of unit_elems
  int64_t src_token_stride;
  int64_t src_head_stride;
  int64_t block_stride;
  int64_t head_stride;
  int64_t group_tokens;  // the block size, but for the values of interleaved_v
  int64_t group_stride;
  int64_t offset_stride;
  int64_t unit_stride;
  int64_t unit_elems;  // neighbours in the input that stay neighbours in the cache
};

// reshape_and_cache: unit_elems is x for keys and 1 for values, offset_stride = unit_elems and
// unit_stride = group_tokens * unit_elems. With interleaved_v the values of x tokens are a group.
// reshape_and_cache_flash: a head is one unit.
struct CacheWriterParams {
  CacheSide key;
  CacheSide value;
  const int64_t* slot_mapping;  // [tokens]; block * block_size + offset, skipped if out of range
  DType dtype;                  // of key and value
  CacheKind kind;               // kAuto, kFp8E4m3 or kFp8E5m2
  int64_t tokens;
  int64_t heads;
  int64_t num_slots;  // blocks * block_size
  int64_t block_size;
  int64_t scale_stride;  // 1: one scale per head, 0: one for all
};

// One of key and value in nvfp4. A page holds the data of all its tokens and heads, then all their
// scales; the last dimension of the cache tensor is as wide as both together.
struct Nvfp4Side {
  const char* src;     // [>= tokens, heads, head_size], last dimension dense
  const float* scale;  // [1]
  uint8_t* cache;      // [blocks, ...]
  int64_t head_size;   // a multiple of 16
  int64_t src_token_stride;
  int64_t src_head_stride;
  int64_t block_stride;
  int64_t data_offset_stride;
  int64_t data_head_stride;
  int64_t scales_start;  // within the page
  int64_t scales_offset_stride;
  int64_t scales_head_stride;
  bool scales_in_tiles;  // see nvfp4_tiled_place
};

// Bytes are those of cache/nvfp4.h.
struct Nvfp4WriterParams {
  Nvfp4Side key;
  Nvfp4Side value;
  const int64_t* slot_mapping;  // [tokens], skipped if out of range
  DType dtype;                  // of key and value
  int64_t tokens;
  int64_t heads;
  int64_t num_slots;
  int64_t block_size;
};

// Dimensions that both tensors lay out alike are merged; what remains after that is few.
inline constexpr int kMaxMergedDims = 8;

struct ConvertFp8Params {
  char* dst;
  const char* src;
  float scale;
  bool store;   // true: bytes = src / scale; false: dst = bytes * scale
  DType dtype;  // of the side that is not bytes: src if `store`, else dst
  int dims;     // at least 1; the last one is innermost
  int64_t sizes[kMaxMergedDims];
  int64_t dst_strides[kMaxMergedDims];
  int64_t src_strides[kMaxMergedDims];
};

}  // namespace kvops
