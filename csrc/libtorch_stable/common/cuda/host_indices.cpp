// Copies index values to the host for checked mode. See host_indices.h.
#include "common/cuda/host_indices.h"

#include <stdexcept>
#include <string>

#include "common/cuda/capture.h"

namespace kvops::cuda {

void copy_to_host(const CudaContext& context, const char* argument, void* to, const void* from,
                  size_t bytes) {
  if (is_capturing(context.stream())) {
    throw std::runtime_error(std::string("kvops::") + context.op() + ": " + argument +
                             " must be readable in checked mode, got a call under CUDA graph "
                             "capture: capture outside of checked mode");
  }
  if (bytes == 0) return;
  context.check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, context.stream()),
                "copy of index values");
  context.check(cudaStreamSynchronize(context.stream()), "copy of index values");
}

}  // namespace kvops::cuda
