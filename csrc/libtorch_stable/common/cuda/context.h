// Device and stream of a CUDA operator, both from its tensor, once per call.
// Created first by every thin CUDA operator; restores the previous device when it goes.
// Uses torch's own guard and stream shims (libtorch_cuda), never a runtime of its own choosing.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/stable.h"

namespace kvops::cuda {

class CudaContext {
 public:
  explicit CudaContext(const Tensor& tensor) {
    const int32_t device = tensor.get_device_index();
    require(aoti_torch_create_cuda_guard(device, &guard_), "device guard");
    void* stream = nullptr;
    if (aoti_torch_get_current_cuda_stream(device, &stream) != AOTI_TORCH_SUCCESS) {
      aoti_torch_delete_cuda_guard(guard_);
      require(AOTI_TORCH_FAILURE, "current stream");
    }
    stream_ = static_cast<cudaStream_t>(stream);
  }
  ~CudaContext() { aoti_torch_delete_cuda_guard(guard_); }
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  cudaStream_t stream() const { return stream_; }

 private:
  static void require(AOTITorchError code, const char* what) {
    if (code != AOTI_TORCH_SUCCESS) {
      throw std::runtime_error(std::string("kvops: torch could not give a CUDA ") + what);
    }
  }

  CUDAGuardHandle guard_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

// Every launch goes through this: a failed one raises with the operator's name.
inline void check_launch(const char* op, cudaError_t error) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("kvops::") + op +
                             ": CUDA launch failed: " + cudaGetErrorString(error));
  }
}

}  // namespace kvops::cuda
