// What each path would take for copies over the link, from measurements: the choice rests on it.
// Built-in numbers for every device until kvops.swap.calibrate() brings those of this machine.
// Torch-free and runtime-free, so that tests can ask it anywhere.
#pragma once

#include <cstddef>

#include "swap/cuda/copy_plan.h"
#include "swap/paths.h"

namespace kvops::cuda {

// Microseconds of one path in one direction: `fixed` for a call, and for each copy of one size
// what lies between the measured ones.
struct PathCost {
  static constexpr int kNumSizes = 8;
  static constexpr double kSizes[kNumSizes] = {512,   4096,  16384,  32768,
                                               40960, 65536, 131072, 1048576};

  double fixed;
  double copy[kNumSizes];

  // Of one copy of so many bytes.
  double one(double copy_bytes) const;
  double of(size_t copies, size_t bytes) const;
};

// Of the paths that can be chosen between, in the order of kModelPaths.
inline constexpr SwapPath kModelPaths[] = {kSwapKernel, kSwapBatch, kSwapSingle, kSwapStrided};
inline constexpr int kNumModelPaths = 4;

struct PathModel {
  PathCost to_device[kNumModelPaths];
  PathCost to_host[kNumModelPaths];

  const PathCost& cost(CopyKind kind, SwapPath path) const;
};

inline constexpr int kModelNumbers = sizeof(PathModel) / sizeof(double);

const PathModel& path_model(int device);

// From now on, for all threads; null goes back to the built-in one. False if there is no such
// device.
bool set_path_model(int device, const double* numbers);

}  // namespace kvops::cuda
