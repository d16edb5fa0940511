// The copy kernel with tables of 4 KiB, for every driver. See copy_blocks.cuh.
#include "swap/cuda/kernels/copy_blocks.cuh"
#include "swap/cuda/kernels/copy_launch.h"

namespace kvops::kernels {

cudaError_t launch_copies_small(std::span<const cuda::Copy> copies, int max_ctas,
                                cudaStream_t stream) {
  return launch_copies<kSmallTable>(copies, max_ctas, stream);
}

}  // namespace kvops::kernels
