// Copies two rows side by side, out = [nope | rope], for every (token, head).
// Launched by cuda::concat_mla_q only; moves 16 bytes at once where everything is 16-byte aligned.
// Falls back to narrower units, down to single bytes, where pointers or strides are not.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "mla/cuda/kernels/concat_rows.cuh"
#include "mla/params.h"

namespace kvops::kernels {

struct QueryRows {
  char* q_out;
  int64_t token_stride_bytes;
  int64_t head_stride_bytes;
  Divisor heads;

  using Row = int64_t;
  using Found = char*;
  __device__ Divided<int64_t> split(int64_t row) const { return heads.divide(row); }
  __device__ char* lookup(int64_t, int64_t token, int64_t head) const {
    return q_out + token * token_stride_bytes + head * head_stride_bytes;
  }
  __device__ bool has(char*) const { return true; }
  __device__ char* place(char* out) const { return out; }
  __device__ void report_if_skipped(int64_t, char*) const {}
};

inline cudaError_t launch_concat_mla_q(const ConcatMlaQParams& p, cudaStream_t stream) {
  const int unit_bytes =
      common_unit_bytes(address_bits(p.ql_nope) | address_bits(p.q_pe) | address_bits(p.q_out) |
                        static_cast<uint64_t>(p.nope_bytes | p.rope_bytes |
                                              p.nope_token_stride_bytes | p.nope_head_stride_bytes |
                                              p.rope_token_stride_bytes | p.rope_head_stride_bytes |
                                              p.out_token_stride_bytes | p.out_head_stride_bytes));
  const QueryRows rows{p.q_out, p.out_token_stride_bytes, p.out_head_stride_bytes,
                       Divisor(p.heads, p.tokens * p.heads)};
  return with_copied_unit(unit_bytes, [&]<class Unit>(Unit) {
    constexpr int64_t kUnitBytes = sizeof(Unit);
    return launch_concat_rows<CopyUnit<Unit>>(
        rows, p.tokens * p.heads,
        {p.ql_nope, p.nope_token_stride_bytes, p.nope_head_stride_bytes, p.nope_bytes / kUnitBytes},
        {p.q_pe, p.rope_token_stride_bytes, p.rope_head_stride_bytes, p.rope_bytes / kUnitBytes},
        nullptr, stream);
  });
}

}  // namespace kvops::kernels
