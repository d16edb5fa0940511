// Order between streams by events, without waiting on the host.
// Used by CopyRun for the side stream that stands in for the legacy default stream, and by
// swap_blocks for copies between two GPUs.
#pragma once

#include <cuda_runtime_api.h>

#include "common/cuda/context.h"

namespace kvops::cuda {

// torch's guard leaves a thread without a context if the device is the one it already had; this
// does not.
void make_current(const CudaContext& context);

// What the stream of `later` gets from now on starts when all that the stream of `earlier` has got
// so far is done. Leaves the device of `later` current.
void order_after(const CudaContext& later, const CudaContext& earlier);

// A stream of our own on the context's device, for calls that refuse the legacy default stream.
// Work on it takes the place of work on `main`: it starts after what main has, and main goes on
// after it once the object is gone.
class SideStream {
 public:
  SideStream(const CudaContext& context, cudaStream_t main);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  cudaStream_t stream() const { return side_; }

  // The same as the end of the object, but throws where that fails.
  void join();

 private:
  const CudaContext& context_;
  cudaStream_t main_;
  cudaStream_t side_;
  bool joined_ = false;
};

}  // namespace kvops::cuda
