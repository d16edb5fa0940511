// Paged attention in fp32 arithmetic over caches of e5m2: 3 kernels.
#include "attention/cuda/kernels/fma_launch.cuh"

namespace kvops::kernels {

cudaError_t launch_fma_e5m2(const PagedAttentionParams& p, const AttentionPlan& plan,
                            cudaStream_t stream) {
  return launch_fma<e5m2_t>(p, plan, stream);
}

}  // namespace kvops::kernels
