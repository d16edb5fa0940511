// Parameters of the MLA kernels, CPU and CUDA alike: plain structs, filled by mla/validate.
// Strides are in elements unless the name says bytes; every pointer says its shape.
#pragma once

#include <cstdint>

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

}  // namespace kvops
