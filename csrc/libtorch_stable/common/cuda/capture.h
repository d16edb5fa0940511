// CUDA-graph capture, as host code meets it.
#pragma once

#include <cuda_runtime_api.h>

namespace kvops::cuda {

// Calls that do not concern the captured stream (loading a kernel, copying on a stream of our own)
// would break a capture of mode "global" or "thread-local" that is under way in this thread.
class RelaxedCapture {
 public:
  RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// Anything but a clear "no" counts as capturing: the caller is about to synchronise.
inline bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(stream, &status);
  if (error != cudaSuccess) cudaGetLastError();
  return error != cudaSuccess || status != cudaStreamCaptureStatusNone;
}

}  // namespace kvops::cuda
