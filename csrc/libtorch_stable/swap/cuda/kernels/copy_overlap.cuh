// Launches of one call without gaps between them: the next one's thread blocks start while the last
// pieces of this one are on their way (programmatic dependent launch, from 9.0 on).
// Included by the copy kernels. Each must call let_next_start in every warp that copies (an exit
// counts, too) and finish_after_previous at its end.
#pragma once

#include <cuda_runtime.h>

#include "common/cuda/launch_options.h"
#include "swap/cuda/kernels/copy_launch.h"

namespace kvops::kernels {

static __device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Until the stream's last kernel before this launch is done, and what it wrote can be seen.
static __device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// A launch must not be done before the one that it overlaps: what the caller's stream gets next
// waits for the last one only. One thread that waits is enough to keep the grid from ending.
static __device__ __forceinline__ void finish_after_previous() {
  if (blockIdx.x == 0 && threadIdx.x == 0) wait_for_previous();
}

struct CopyGrid {
  unsigned ctas;
  unsigned threads;
};

template <class Table>
cudaError_t launch_table(void (*kernel)(Table), const Table& table, const CopyGrid& grid,
                         const CopyLaunch& launch) {
  void* arguments[] = {const_cast<Table*>(&table)};
  return cuda::launch_with(
      {.priority = launch.priority, .may_overlap = launch.start != LaunchStart::kInTurn},
      reinterpret_cast<const void*>(kernel), dim3(grid.ctas), dim3(grid.threads), arguments,
      launch.stream);
}

}  // namespace kvops::kernels
