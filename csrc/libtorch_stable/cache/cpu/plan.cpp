// See plan.h.
// Called once per operator call.
#include "cache/cpu/plan.h"

namespace kvops::cpu {
namespace {

constexpr int64_t kGrainElems = 32768;

int64_t token_elems(const CacheWriterParams& p) {
  return p.heads * (p.key.head_size + p.value.head_size);
}

}  // namespace

RowConversion store_conversion(DType dtype, CacheKind kind) {
  const RowKernels& kernels = row_kernels();
  if (kind == CacheKind::kAuto) {
    return dtype == DType::kFloat ? kernels.copy_4_bytes : kernels.copy_2_bytes;
  }
  const bool e4m3 = kind == CacheKind::kFp8E4m3;
  if (dtype == DType::kHalf) return e4m3 ? kernels.half_to_e4m3 : kernels.half_to_e5m2;
  if (dtype == DType::kFloat) return e4m3 ? kernels.float_to_e4m3 : kernels.float_to_e5m2;
  return e4m3 ? kernels.bfloat16_to_e4m3 : kernels.bfloat16_to_e5m2;
}

RowConversion load_conversion(DType dtype) {
  const RowKernels& kernels = row_kernels();
  if (dtype == DType::kHalf) return kernels.e4m3_to_half;
  return dtype == DType::kFloat ? kernels.e4m3_to_float : kernels.e4m3_to_bfloat16;
}

int64_t grain_tokens(const CacheWriterParams& p) {
  const int64_t elems = token_elems(p);
  return elems == 0 ? p.tokens : 1 + kGrainElems / elems;
}

Stores stores_for(const CacheWriterParams& p, bool whole_lines_written) {
  const int64_t bytes = p.tokens * token_elems(p) * stored_bytes_of(p.dtype, p.kind);
  return whole_lines_written && bytes >= kStreamingBytes ? Stores::kStreaming : Stores::kCached;
}

}  // namespace kvops::cpu
