// Paged attention in fp32 arithmetic over caches of e4m3: 3 kernels.
#include "attention/cuda/kernels/fma_launch.cuh"

namespace kvops::kernels {

cudaError_t launch_fma_e4m3(const PagedAttentionParams& p, const AttentionPlan& plan,
                            cudaStream_t stream) {
  return launch_fma<e4m3_t>(p, plan, stream);
}

}  // namespace kvops::kernels
