// What both cache writers decide before their loops: element sizes, row conversion, kind of
// stores, size of a parallel task. convert_fp8 uses the first two.
// Everything here is cheap and depends on sizes and addresses only.
#pragma once

#include <cstdint>

#include "cache/cpu/kernels.h"
#include "cache/params.h"
#include "common/streaming.h"

namespace kvops::cpu {

// Of a tensor in half, bfloat16 or float.
inline int64_t element_bytes_of(DType dtype) { return dtype == DType::kFloat ? 4 : 2; }

// Of a cache that holds such elements.
inline int64_t stored_bytes_of(DType dtype, CacheKind kind) {
  return kind == CacheKind::kAuto ? element_bytes_of(dtype) : 1;
}

// To the cache: a copy for kAuto, else FP8.
RowConversion store_conversion(DType dtype, CacheKind kind);
// From E4M3 to `dtype`.
RowConversion load_conversion(DType dtype);

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Tokens per parallel task: enough elements that waking a thread is worth it.
int64_t grain_tokens(const CacheWriterParams& p);

// Streaming stores where a call writes more than the caches keep and, as the caller knows, whole
// cache lines at a time.
Stores stores_for(const CacheWriterParams& p, bool whole_lines_written);

}  // namespace kvops::cpu
