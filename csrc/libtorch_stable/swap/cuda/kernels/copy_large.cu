// The copy kernel with tables of 32 KiB, for drivers from CUDA 12.1 on. See copy_blocks.cuh.
#include "swap/cuda/kernels/copy_blocks.cuh"
#include "swap/cuda/kernels/copy_launch.h"

namespace kvops::kernels {

cudaError_t launch_copies_large(std::span<const cuda::Copy> copies, int max_ctas,
                                cudaStream_t stream) {
  return launch_copies<kLargeTable>(copies, max_ctas, stream);
}

}  // namespace kvops::kernels
