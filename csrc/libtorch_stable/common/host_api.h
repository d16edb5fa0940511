// What _C offers _C_cuda: one struct of function pointers, handed over after both are loaded.
// Defined in registration/host_api.cpp, received in registration/cuda.cpp.
// Both libraries come from the same build, so the layout may change from build to build.
#pragma once

namespace kvops {

struct HostApi {
  bool (*checked_mode)();
};

}  // namespace kvops
