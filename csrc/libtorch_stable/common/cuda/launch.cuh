// The launch of a kernel as one call of the runtime that says how it went; <<<>>> followed by
// cudaGetLastError makes four. For calls so small that the GPU waits for the host.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

namespace kvops::kernels {

template <class... Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 blocks, unsigned threads,
                          cudaStream_t stream,
                          const std::type_identity_t<Parameters>&... arguments) {
  void* addresses[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), blocks, dim3(threads), addresses,
                          0, stream);
}

}  // namespace kvops::kernels
