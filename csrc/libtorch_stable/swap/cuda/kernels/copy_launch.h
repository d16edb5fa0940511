// Launches of the copy kernels. Addresses may be of this device or of pinned host memory that it
// can reach under the same address.
// Called by copy_run and by swap_blocks; the device must be current.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "swap/cuda/copy.h"

namespace kvops::kernels {

// Whether a launch may be on the GPU before the stream's last kernel has ended (9.0 on).
enum class LaunchStart : uint8_t {
  kInTurn,
  kReady,     // there, but touches nothing before that: a launch costs less so
  kOverlaps,  // at once: the last kernel is one of these, of the same call
};

struct CopyLaunch {
  cudaStream_t stream;
  bool over_link;  // or within the device
  int max_ctas;    // of kCopyThreads, where they stay
  int priority;    // as of a stream: lower ones get free room first; 0 for the stream's own
  int ring_ctas;   // for copy_ring.cu, where it can be; 0 if it must not
  LaunchStart start;
};

// 128 bytes are in flight in each thread. Four thread blocks of so many fill a link of PCIe 5, also
// where it takes long to answer (virtual machines: half as many reach 0.7 to 0.9).
inline constexpr int kCopyThreads = 512;
inline constexpr int kMostRingCtas = 1000;

// How many copies at the front of the list one launch can take at most, and a quick one (where they
// are close together: half as many elsewhere); and one that is quick wherever they are.
inline constexpr size_t kMostCopies = 998;
inline constexpr size_t kQuickCopies = 230;
inline constexpr size_t kFewCopies = 115;

// Launches some copies from the front of the list, all at the same time; says how many.
cudaError_t launch_copies(std::span<const cuda::Copy> copies, const CopyLaunch& launch,
                          size_t& launched);

// One after the other, each as memmove does it: for copies that depend on each other. Slow: one
// thread block does it all.
cudaError_t launch_copies_in_order(std::span<const cuda::Copy> copies, cudaStream_t stream);

}  // namespace kvops::kernels
