// Opens the driver and compares its version with that of our runtime. See driver.h.
// Called once per process, at the first CUDA operator or by kvops.info().
// Asks the driver itself: the runtime would have to be initialised first, and fails if too old.
#include "common/cuda/driver.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdlib>

namespace kvops::cuda {
namespace {

void* open_driver() {
  const char* stand_in = std::getenv("KVOPS_LIBCUDA");
  return dlopen(stand_in != nullptr ? stand_in : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
}

int ask_driver_version() {
  void* library = driver_library();
  if (library == nullptr) return 0;
  using GetVersion = int (*)(int*);
  const auto get_version = reinterpret_cast<GetVersion>(dlsym(library, "cuDriverGetVersion"));
  int version = 0;
  return get_version != nullptr && get_version(&version) == 0 ? version : 0;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string find_problem() {
  constexpr int kMajor = CUDART_VERSION / 1000;
  const int version = driver_version();
  if (version == 0) return "no CUDA driver answers (libcuda.so.1 is missing or broken)";
  if (version / 1000 >= kMajor) return {};
  const char* release = kMajor == 13 ? "R580" : kMajor == 12 ? "R525" : "a newer one";
  return "the NVIDIA driver supports CUDA " + version_text(version) +
         ", but this kvops is built with CUDA " + version_text(CUDART_VERSION) +
         ", which needs a driver for CUDA " + std::to_string(kMajor) + ".0 or later (" + release +
         "): update the driver, or use a kvops built with an older CUDA";
}

}  // namespace

void* driver_library() {
  static void* const library = open_driver();
  return library;
}

int driver_version() {
  static const int version = ask_driver_version();
  return version;
}

const std::string& driver_problem() {
  static const std::string problem = find_problem();
  return problem;
}

}  // namespace kvops::cuda
