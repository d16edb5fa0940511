// The launch of a kernel as one call that says how it went; <<<>>> followed by cudaGetLastError
// makes four, through our runtime. For calls so small that the GPU waits for the host.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

#include "common/cuda/driver_launch.h"

namespace kvops::kernels {

template <class... Parameters>
cudaError_t launch_kernel_with_shared(void (*kernel)(Parameters...), dim3 blocks, dim3 threads,
                                      size_t shared_bytes, cudaStream_t stream,
                                      const std::type_identity_t<Parameters>&... arguments) {
  void* addresses[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  return cuda::launch(reinterpret_cast<const void*>(kernel), blocks, threads, addresses,
                      shared_bytes, stream);
}

// Of a kernel without shared memory beyond what it declares.
template <class... Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 blocks, dim3 threads,
                          cudaStream_t stream,
                          const std::type_identity_t<Parameters>&... arguments) {
  return launch_kernel_with_shared(kernel, blocks, threads, 0, stream, arguments...);
}

}  // namespace kvops::kernels
