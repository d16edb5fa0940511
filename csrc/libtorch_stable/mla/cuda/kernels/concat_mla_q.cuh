// Copies two rows side by side: out = [nope | rope], one warp per (token, head).
// Launched by cuda::concat_mla_q only; moves 16 bytes a lane where everything is 16-byte aligned.
// Falls back to narrower units, down to single bytes, where pointers or strides are not.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "mla/params.h"

namespace kvops::kernels {

template <class Unit>
__device__ void copy_row(char* out, const char* in, int64_t bytes, int lane) {
  Unit* to = reinterpret_cast<Unit*>(out);
  const Unit* from = reinterpret_cast<const Unit*>(in);
  const int64_t units = bytes / static_cast<int64_t>(sizeof(Unit));
  for (int64_t i = lane; i < units; i += 32) to[i] = from[i];
}

template <class Unit>
__global__ void concat_mla_q_kernel(const __grid_constant__ ConcatMlaQParams p) {
  const int64_t rows = p.tokens * p.heads;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  const int lane = threadIdx.x % 32;
  int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  for (; row < rows; row += warps) {
    const int64_t token = row / p.heads;
    const int64_t head = row % p.heads;
    char* out = p.q_out + token * p.out_token_stride_bytes + head * p.out_head_stride_bytes;
    copy_row<Unit>(out,
                   p.ql_nope + token * p.nope_token_stride_bytes + head * p.nope_head_stride_bytes,
                   p.nope_bytes, lane);
    copy_row<Unit>(out + p.nope_bytes,
                   p.q_pe + token * p.rope_token_stride_bytes + head * p.rope_head_stride_bytes,
                   p.rope_bytes, lane);
  }
}

// The widest unit that divides every pointer, stride and width: 16, 4, 2 or 1 bytes.
inline int common_unit_bytes(const ConcatMlaQParams& p) {
  const uint64_t all = reinterpret_cast<uint64_t>(p.ql_nope) | reinterpret_cast<uint64_t>(p.q_pe) |
                       reinterpret_cast<uint64_t>(p.q_out) |
                       static_cast<uint64_t>(p.nope_bytes | p.rope_bytes |
                                             p.nope_token_stride_bytes | p.nope_head_stride_bytes |
                                             p.rope_token_stride_bytes | p.rope_head_stride_bytes |
                                             p.out_token_stride_bytes | p.out_head_stride_bytes);
  for (int unit : {16, 4, 2}) {
    if (all % unit == 0) return unit;
  }
  return 1;
}

inline cudaError_t launch_concat_mla_q(const ConcatMlaQParams& p, cudaStream_t stream) {
  constexpr int kThreads = 256;
  const int64_t rows = p.tokens * p.heads;
  if (rows == 0) return cudaSuccess;
  const int64_t wanted = (rows + kThreads / 32 - 1) / (kThreads / 32);
  const unsigned blocks = static_cast<unsigned>(wanted < 65536 ? wanted : 65536);
  switch (common_unit_bytes(p)) {
    case 16:
      concat_mla_q_kernel<uint4><<<blocks, kThreads, 0, stream>>>(p);
      break;
    case 4:
      concat_mla_q_kernel<uint32_t><<<blocks, kThreads, 0, stream>>>(p);
      break;
    case 2:
      concat_mla_q_kernel<uint16_t><<<blocks, kThreads, 0, stream>>>(p);
      break;
    default:
      concat_mla_q_kernel<uint8_t><<<blocks, kThreads, 0, stream>>>(p);
  }
  return cudaGetLastError();
}

}  // namespace kvops::kernels
