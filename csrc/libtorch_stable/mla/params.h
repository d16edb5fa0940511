// Parameters of the MLA kernels, CPU and CUDA alike: plain structs, filled by mla/validate.
// Strides are in elements unless the name says bytes; every pointer says its shape.
// Slots, positions and what they lead to are not checked here: kernels skip what is out of range.
#pragma once

#include <cstdint>

#include "common/ds_mla_entry.h"
#include "common/dtype.h"

namespace kvops {

// Byte-wise: the operator only moves bytes, so it serves every dtype.
struct ConcatMlaQParams {
  const char* ql_nope;  // [tokens, heads, nope_bytes]
  const char* q_pe;     // [tokens, heads, rope_bytes]
  char* q_out;          // [tokens, heads, nope_bytes + rope_bytes]
  int64_t tokens;
  int64_t heads;
  int64_t nope_bytes;
  int64_t rope_bytes;
  int64_t nope_token_stride_bytes;
  int64_t nope_head_stride_bytes;
  int64_t rope_token_stride_bytes;
  int64_t rope_head_stride_bytes;
  int64_t out_token_stride_bytes;
  int64_t out_head_stride_bytes;
};

// One cache entry per token, [kv_c | k_pe]: all of concat_and_cache_mla, half of the fused one.
struct MlaEntriesParams {
  const void* kv_c;             // [>= tokens, latent_elems], dtype
  const void* k_pe;             // [>= tokens, rope_elems], dtype
  char* kv_cache;               // [num_slots / block_size, block_size, entry]
  const int64_t* slot_mapping;  // [tokens]
  const float* scale;           // one float, read by kFp8E4m3 and kFp8E5m2 only; null is 1
  DType dtype;                  // kHalf, kBFloat16 or kFloat; kBFloat16 for kFp8DsMla
  CacheKind kind;
  bool power_of_two_scales;  // of the tiles of kFp8DsMla
  int64_t tokens;
  int64_t num_slots;
  int64_t block_size;
  int64_t latent_elems;
  int64_t rope_elems;  // kFp8DsMla: 64, or 0 and zeros are written
  int64_t kv_c_stride_elems;
  int64_t k_pe_stride_elems;
  int64_t block_stride_bytes;
  int64_t entry_stride_bytes;
};

// Rotates q_pe and k_pe in place, then writes the entries from the rotated k_pe.
struct RopeFusedParams {
  MlaEntriesParams entries;
  const int64_t* positions;  // [>= tokens], rows of cos_sin
  void* q_pe;                // [tokens, heads, rot_elems]
  void* k_pe;                // [tokens, rot_elems], the memory of entries.k_pe
  const void* cos_sin;       // [max_positions, rot_elems]: cosines, then sines
  bool is_neox;              // pairs (i, i + rot / 2), else (2 i, 2 i + 1)
  int64_t max_positions;
  int64_t heads;
  int64_t rot_elems;  // even
  int64_t q_token_stride_elems;
  int64_t q_head_stride_elems;
  int64_t cos_sin_stride_elems;
};

// Within a block of the indexer cache: all e4m3 rows, then all float scales.
struct IndexerQuantParams {
  const void* k;                // [tokens, head_elems], bfloat16
  char* kv_cache;               // [num_slots / block_size, bytes of a block]
  const int64_t* slot_mapping;  // [>= tokens]
  bool power_of_two_scales;
  int64_t tokens;
  int64_t num_slots;
  int64_t block_size;
  int64_t head_elems;  // a multiple of kTileElems
  int64_t k_stride_elems;
  int64_t block_stride_bytes;
};

}  // namespace kvops
