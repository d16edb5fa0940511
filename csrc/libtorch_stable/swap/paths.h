// Ways in which a swap can move bytes, and what the calling thread wants and got.
// Kept by _C (swap/cpu/paths.cpp), so that host copies count as well; _C_cuda reaches it through
// HostApi. Read and set from Python by kvops.swap: last_path(), use_path().
#pragma once

namespace kvops {

// Bits: one call may need several.
enum SwapPath : unsigned {
  kSwapHost = 1,      // the CPU copies, before the call returns
  kSwapKernel = 2,    // a copy kernel on the GPU
  kSwapBatch = 4,     // the driver's batched copy
  kSwapSingle = 8,    // one driver call for each copy
  kSwapStrided = 16,  // one 2-D copy by the driver for blocks at constant distances
};
inline constexpr unsigned kSwapByDriver = kSwapBatch | kSwapSingle | kSwapStrided;
inline constexpr unsigned kSwapAnyPath = kSwapKernel | kSwapByDriver;

struct SwapWishes {
  unsigned paths;  // bits that may be used where they can be
  int max_sms;     // multiprocessors that a copy kernel may use for copies over the link
};

// What the calling thread asked for, or else the environment: KVOPS_SWAP_PATH, KVOPS_SWAP_MAX_SMS.
SwapWishes swap_wishes();

// What the last swap of this thread used, as bits; 0 before the first.
void note_swap_paths(unsigned paths);

}  // namespace kvops
