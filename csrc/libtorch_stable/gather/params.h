// Parameters of the gathers, CPU and CUDA alike: plain structs, filled by gather/validate.
// Strides are in elements unless the name says bytes; every pointer says its shape.
// Values of index tensors (tables, starts, lengths) are never trusted by who reads them.
#pragma once

#include <cstdint>

#include "common/ds_mla_entry.h"
#include "common/dtype.h"

namespace kvops {

// Which entry of a paged cache goes to which row of dst. Request b has the rows from row_starts[b]
// to row_starts[b + 1], which are its positions seq_starts[b], seq_starts[b] + 1, ...
struct PagedRequests {
  const int32_t* block_table;        // [num_requests, max_blocks], physical block ids
  int64_t block_table_stride_elems;  // of dimension 0
  int64_t max_blocks;
  const int32_t* row_starts;  // [num_row_starts]
  int64_t num_row_starts;     // num_requests + 1, or num_requests: the last one runs to the end
  const int32_t* seq_starts;  // [num_requests], in tokens; null: all 0
  int64_t num_requests;
  int64_t num_blocks;
  int64_t block_size;  // in tokens
  int64_t num_rows;    // rows of dst to fill; later ones are left alone
};

// The bytes behind it: entries of a paged cache and the rows of dst they are gathered to.
struct EntryRows {
  const char* src;  // [num_blocks, block_size, entry_bytes]
  int64_t block_stride_bytes;
  int64_t entry_stride_bytes;
  int64_t entry_bytes;
  char* dst;  // [num_rows, row_bytes]
  int64_t row_stride_bytes;
  int64_t row_bytes;
};

struct GatherAndMaybeDequantCacheParams {
  PagedRequests requests;
  EntryRows rows;
  const int32_t* token_to_seq;  // [num_rows], the request of each row
  int64_t dst_rows;             // size of dst, num_rows or more
  int64_t row_elems;
  CacheKind kind;
  DType dst_dtype;
  const float* scale;  // one; null for kAuto
};

struct CpGatherCacheParams {
  PagedRequests requests;
  EntryRows rows;
};

struct CpGatherAndUpconvertFp8KvCacheParams {
  PagedRequests requests;
  EntryRows rows;
};

struct CpGatherIndexerKQuantCacheParams {
  PagedRequests requests;
  EntryRows k;
  EntryRows scales;
};

// A gathered fp8_ds_mla entry: latent and rope elements, all bfloat16.
inline constexpr int64_t kDsMlaRowElems = kDsMlaLatentElems + kDsMlaRopeElems;

}  // namespace kvops
