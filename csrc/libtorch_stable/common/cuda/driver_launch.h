// Kernel launches straight through the driver: our runtime would look the kernel up, and do some
// housekeeping, in every call. Used by launch.cuh; CudaContext asks for the current context.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace kvops::cuda {

// Of the context that is current in this thread; no other context ever has the same one. 0 where
// there is none yet (a new thread's), or where the driver does not say.
uint64_t current_context_id();

// The same as cudaLaunchKernel, which does it where the driver cannot.
cudaError_t launch(const void* kernel, dim3 blocks, dim3 threads, void** arguments,
                   size_t shared_bytes, cudaStream_t stream);

}  // namespace kvops::cuda
