// Paged attention on tensor cores over caches of e5m2: 6 kernels.
#include "attention/cuda/kernels/mma_launch.cuh"

namespace kvops::kernels {

cudaError_t launch_mma_e5m2(const PagedAttentionParams& p, const AttentionPlan& plan,
                            cudaStream_t stream) {
  return launch_mma<half_t, e5m2_t>(p, plan, stream);
}

}  // namespace kvops::kernels
