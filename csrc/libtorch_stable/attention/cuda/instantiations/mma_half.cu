// Paged attention on tensor cores over caches of half: 6 kernels.
#include "attention/cuda/kernels/mma_launch.cuh"

namespace kvops::kernels {

cudaError_t launch_mma_half(const PagedAttentionParams& p, const AttentionPlan& plan,
                            cudaStream_t stream) {
  return launch_mma<half_t, half_t>(p, plan, stream);
}

}  // namespace kvops::kernels
