// Paged attention on tensor cores over caches of e4m3: 6 kernels.
#include "attention/cuda/kernels/mma_launch.cuh"

namespace kvops::kernels {

cudaError_t launch_mma_e4m3(const PagedAttentionParams& p, const AttentionPlan& plan,
                            cudaStream_t stream) {
  return launch_mma<half_t, e4m3_t>(p, plan, stream);
}

}  // namespace kvops::kernels
