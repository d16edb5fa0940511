// Launches of the copy kernels. Addresses may be of this device or of pinned host memory that it
// can reach under the same address.
// Called by copy_run and by swap_blocks; the device must be current.
#pragma once

#include <cuda_runtime_api.h>

#include <span>

#include "swap/cuda/copy.h"

namespace kvops::kernels {

struct RowTable;
struct BlockTable;

struct CopyLaunch {
  cudaStream_t stream;
  int max_ctas;
  int priority;            // as of a stream: lower ones get free room first; 0 for the stream's own
  bool overlaps_previous;  // may start before the stream's last kernel, one of these, has ended
};

// Of each thread block; 128 bytes are in flight in each thread. Four thread blocks fill a link of
// PCIe 5, also where it takes long to answer (virtual machines: half as many reach 0.7 to 0.9).
inline constexpr int kCopyThreads = 512;

// How many copies at the front of the list one launch can take at most.
inline constexpr size_t kMostCopies = 500;

// Launches some copies from the front of the list, all at the same time; says how many.
cudaError_t launch_copies(std::span<const cuda::Copy> copies, const CopyLaunch& launch,
                          size_t& launched);

cudaError_t launch_rows(const RowTable& table, const CopyLaunch& launch);
cudaError_t launch_blocks(const BlockTable& table, const CopyLaunch& launch);

// One after the other, each as memmove does it: for copies that depend on each other. Slow: one
// thread block does it all.
cudaError_t launch_copies_in_order(std::span<const cuda::Copy> copies, cudaStream_t stream);

}  // namespace kvops::kernels
