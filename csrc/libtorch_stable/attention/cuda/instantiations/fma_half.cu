// Paged attention in fp32 arithmetic over caches of half: 3 kernels.
#include "attention/cuda/kernels/fma_launch.cuh"

namespace kvops::kernels {

cudaError_t launch_fma_half(const PagedAttentionParams& p, const AttentionPlan& plan,
                            cudaStream_t stream) {
  return launch_fma<half_t>(p, plan, stream);
}

}  // namespace kvops::kernels
