// Ways in which a swap can move bytes, and what the calling thread wants and got.
// Kept by _C (swap/cpu/paths.cpp), so that host copies count as well; _C_cuda reaches it through
// HostApi. Read from Python by kvops.swap.last_path(), set by kvops.swap.use_path().
#pragma once

namespace kvops {

// Bits: one call may need several.
enum SwapPath : unsigned {
  kSwapHost = 1,    // the CPU copies, before the call returns
  kSwapKernel = 2,  // a copy kernel on the GPU
  kSwapBatch = 4,   // the driver's batched copy
  kSwapSingle = 8,  // one driver call for each copy
};

// What the thread asked for: one of the last three, or 0 for the best by itself.
unsigned wanted_swap_path();

// What the last swap of this thread used, as bits; 0 before the first.
void note_swap_paths(unsigned paths);

}  // namespace kvops
