// Launches of the copy kernels. Addresses may be of this device or of pinned host memory that it
// can reach under the same address.
// Called by run_plan and by swap_blocks; the device must be current. Small and large tables are
// compiled apart: a driver that knows no large parameters must not be asked to load both.
#pragma once

#include <cuda_runtime_api.h>

#include <span>

#include "swap/cuda/copy.h"

namespace kvops::kernels {

// All at the same time, by at most `max_ctas` thread blocks.
cudaError_t launch_copies_small(std::span<const cuda::Copy> copies, int max_ctas,
                                cudaStream_t stream);
cudaError_t launch_copies_large(std::span<const cuda::Copy> copies, int max_ctas,
                                cudaStream_t stream);

// One after the other, each as memmove does it: for copies that depend on each other. Slow: one
// thread block does it all.
cudaError_t launch_copies_in_order(std::span<const cuda::Copy> copies, cudaStream_t stream);

}  // namespace kvops::kernels
