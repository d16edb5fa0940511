// The arithmetic of the gathers, one table of functions per SIMD level (common/isa.h).
// Called by the thin operators of gather/cpu for dense stretches of entries.
// Byte-exact (spec 4.4): product in float, rounded to nearest even, NaN made canonical.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"

namespace kvops::cpu {

// What each of the 256 float8 bytes becomes, for one scale: values of 2 or of 4 bytes.
struct DecodeTable {
  alignas(64) uint32_t words[256];
};

struct GatherKernels {
  // kind: kFp8E4m3 or kFp8E5m2; dtype: kHalf, kBFloat16 or kFloat.
  void (*fill_table)(DecodeTable& table, CacheKind kind, DType dtype, float scale);
  // dst[i] = table[src[i]] for i < count, with values of 2 or of 4 bytes.
  void (*decode_to_2_bytes)(void* dst, const void* src, int64_t count, const DecodeTable& table);
  void (*decode_to_4_bytes)(void* dst, const void* src, int64_t count, const DecodeTable& table);
  // bfloat16 rows of kDsMlaRowElems from as many fp8_ds_mla entries, dense, of any alignment.
  // The table is that of e4m3, bfloat16 and scale 1.
  void (*upconvert_ds_mla)(void* dst, const void* src, int64_t entries, const DecodeTable& table);
};

}  // namespace kvops::cpu

KVOPS_DECLARE_KERNELS(GatherKernels, gather_kernels)
