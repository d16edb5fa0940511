// Entry points of the driver for launches, and the functions that it has loaded. See
// driver_launch.h.
#include "common/cuda/driver_launch.h"

#include <cuda.h>
#include <dlfcn.h>

#include <atomic>
#include <memory>

#include "common/cuda/capture.h"
#include "common/cuda/driver.h"

namespace kvops::cuda {
namespace {

struct EntryPoints {
  decltype(&cuLaunchKernel) launch_kernel = nullptr;
  decltype(&cuCtxGetId) get_context_id = nullptr;  // 12.0 on
};

EntryPoints find_entry_points() {
  void* library = driver_library();
  if (library == nullptr) return {};
  const EntryPoints found = {
      .launch_kernel =
          reinterpret_cast<decltype(&cuLaunchKernel)>(dlsym(library, "cuLaunchKernel")),
      .get_context_id = reinterpret_cast<decltype(&cuCtxGetId)>(dlsym(library, "cuCtxGetId")),
  };
  return found.launch_kernel != nullptr ? found : EntryPoints{};
}

const EntryPoints& entry_points() {
  static const EntryPoints found = find_entry_points();
  return found;
}

// A kernel as one context has loaded it: valid as long as that context, whose id ends with it.
struct Loaded {
  const void* kernel;
  uint64_t context;
  CUfunction function;
};

// All kernels of ours that were launched, a few hundred at most. Entries stay once they are there,
// so reading takes no lock. One for which there is no room is launched by the runtime.
class LoadedKernels {
 public:
  CUfunction find(const void* kernel, uint64_t context) {
    for (size_t probe = 0; probe < kProbes; ++probe) {
      const Loaded* loaded = slot(kernel, context, probe).load(std::memory_order_acquire);
      if (loaded == nullptr) return nullptr;
      if (loaded->kernel == kernel && loaded->context == context) return loaded->function;
    }
    return nullptr;
  }

  void add(const Loaded& loaded) {
    auto entry = std::make_unique<Loaded>(loaded);
    for (size_t probe = 0; probe < kProbes; ++probe) {
      const Loaded* expected = nullptr;
      if (slot(loaded.kernel, loaded.context, probe)
              .compare_exchange_strong(expected, entry.get(), std::memory_order_acq_rel)) {
        entry.release();
        return;
      }
    }
  }

 private:
  static constexpr size_t kSlots = 2048;
  static constexpr size_t kProbes = 16;

  std::atomic<const Loaded*>& slot(const void* kernel, uint64_t context, size_t probe) {
    const uint64_t key = reinterpret_cast<uint64_t>(kernel) / 16 + context * 977 + probe;
    return slots_[key % kSlots];
  }

  std::atomic<const Loaded*> slots_[kSlots] = {};
};

LoadedKernels loaded_kernels;

CUfunction load(const void* kernel, uint64_t context) {
  const RelaxedCapture relaxed;
  CUfunction function = nullptr;
  if (cudaGetFuncBySymbol(&function, kernel) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  // The runtime may have made another context current.
  if (current_context_id() != context) return nullptr;
  loaded_kernels.add({.kernel = kernel, .context = context, .function = function});
  return function;
}

}  // namespace

uint64_t current_context_id() {
  const auto get_id = entry_points().get_context_id;
  unsigned long long id = 0;
  return get_id != nullptr && get_id(nullptr, &id) == CUDA_SUCCESS ? id : 0;
}

cudaError_t launch(const void* kernel, dim3 blocks, dim3 threads, void** arguments,
                   size_t shared_bytes, cudaStream_t stream) {
  const uint64_t context = current_context_id();
  if (context != 0) {
    CUfunction function = loaded_kernels.find(kernel, context);
    if (function == nullptr) function = load(kernel, context);
    if (function != nullptr &&
        entry_points().launch_kernel(function, blocks.x, blocks.y, blocks.z, threads.x, threads.y,
                                     threads.z, static_cast<unsigned>(shared_bytes), stream,
                                     arguments, nullptr) == CUDA_SUCCESS) {
      return cudaSuccess;
    }
  }
  // Nothing has been launched. If something is wrong, this says what, in the runtime's words.
  return cudaLaunchKernel(kernel, blocks, threads, arguments, shared_bytes, stream);
}

}  // namespace kvops::cuda
