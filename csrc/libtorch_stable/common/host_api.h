// What _C offers _C_cuda: one struct of function pointers, handed over after both are loaded.
// Defined in registration/host_api.cpp, received in registration/cuda.cpp.
// Both libraries come from the same build, so the layout may change from build to build.
#pragma once

#include "swap/ops.h"
#include "swap/paths.h"

namespace kvops {

struct HostApi {
  bool (*checked_mode)();
  void (*set_swap_on_devices)(SwapOnDevices* implementation);
  SwapWishes (*swap_wishes)();
  void (*note_swap_paths)(unsigned paths);
};

}  // namespace kvops
