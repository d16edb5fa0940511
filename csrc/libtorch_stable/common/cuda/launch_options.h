// Launches that ask for more than a grid, straight through the driver like driver_launch.h's.
#pragma once

#include <cuda_runtime_api.h>

namespace kvops::cuda {

struct LaunchOptions {
  int priority = 0;          // as of a stream; 0 for the stream's own
  bool may_overlap = false;  // with the stream's last kernel (programmatic stream serialization)
};

// The same as cudaLaunchKernelExC, which does it where the driver cannot.
cudaError_t launch_with(const LaunchOptions& options, const void* kernel, dim3 blocks, dim3 threads,
                        void** arguments, cudaStream_t stream);

}  // namespace kvops::cuda
