// Host side of the paged attention kernels: device limits and launch. No torch. Called by
// cuda::paged_attention with a plan whose workspace is placed.
#pragma once

#include <cuda_runtime_api.h>

#include "attention/cuda/kernels/plan.h"

namespace kvops::kernels {

cudaError_t read_device_limits(int device, DeviceLimits& limits);

cudaError_t launch_paged_attention(const PagedAttentionParams& p, const AttentionPlan& plan,
                                   cudaStream_t stream);

// One per element type of a cache, in instantiations/.
using LaunchAttention = cudaError_t(const PagedAttentionParams& p, const AttentionPlan& plan,
                                    cudaStream_t stream);
LaunchAttention launch_fma_float;
LaunchAttention launch_fma_half;
LaunchAttention launch_fma_bfloat16;
LaunchAttention launch_fma_e4m3;
LaunchAttention launch_fma_e5m2;
// Tensor cores; fp8 for queries of both 16-bit types.
LaunchAttention launch_mma_half;
LaunchAttention launch_mma_bfloat16;
LaunchAttention launch_mma_e4m3;
LaunchAttention launch_mma_e5m2;

}  // namespace kvops::kernels
