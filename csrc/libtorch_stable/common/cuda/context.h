// Operator, device and stream of a CUDA call, the last two from its tensor, once per call.
// Created first by every thin CUDA operator, after validation; restores the previous device.
// Switches devices and looks up streams through torch's shims (libtorch_cuda) only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/skipped.h"
#include "common/tensor.h"

namespace kvops::cuda {

class CudaContext {
 public:
  // Raises if the driver is too old for our runtime (one sentence that names both).
  CudaContext(const char* op, const Tensor& tensor);
  // For calls without a CUDA tensor.
  CudaContext(const char* op, int32_t device);
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  const char* op() const { return op_; }
  int device() const { return device_; }
  cudaStream_t stream() const { return stream_; }
  // Of the driver's current context, where it was the device's before this object; else 0.
  uint64_t context_id() const { return context_id_; }

  // For kernels: how to report values of this argument (a string literal) that they skip.
  SkipReport skips(const char* argument) const;

  // Every launch goes through this: a failed one raises with the operator's name.
  void check(cudaError_t error, const char* what = "launch") const;

 private:
  void restore_device();

  const char* op_;
  int32_t device_;
  uint64_t context_id_;
  CUDAGuardHandle guard_ = nullptr;  // null: the device was the current one
  cudaStream_t stream_ = nullptr;
};

}  // namespace kvops::cuda
