// Paged attention in fp32 arithmetic over caches of float: 3 kernels.
#include "attention/cuda/kernels/fma_launch.cuh"

namespace kvops::kernels {

cudaError_t launch_fma_float(const PagedAttentionParams& p, const AttentionPlan& plan,
                             cudaStream_t stream) {
  return launch_fma<float>(p, plan, stream);
}

}  // namespace kvops::kernels
