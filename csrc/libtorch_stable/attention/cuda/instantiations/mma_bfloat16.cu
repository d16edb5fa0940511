// Paged attention on tensor cores over caches of bfloat16: 6 kernels.
#include "attention/cuda/kernels/mma_launch.cuh"

namespace kvops::kernels {

cudaError_t launch_mma_bfloat16(const PagedAttentionParams& p, const AttentionPlan& plan,
                                cudaStream_t stream) {
  return launch_mma<bfloat16_t, bfloat16_t>(p, plan, stream);
}

}  // namespace kvops::kernels
