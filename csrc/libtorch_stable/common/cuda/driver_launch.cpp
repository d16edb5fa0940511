// Entry points of the driver for launches, and the functions that it has loaded. See
// driver_launch.h and launch_options.h.
#include "common/cuda/driver_launch.h"

#include <cuda.h>
#include <dlfcn.h>

#include <atomic>
#include <memory>

#include "common/cuda/capture.h"
#include "common/cuda/driver.h"
#include "common/cuda/launch_options.h"

namespace kvops::cuda {
namespace {

struct EntryPoints {
  decltype(&cuLaunchKernel) launch_kernel = nullptr;
  decltype(&cuLaunchKernelEx) launch_kernel_ex = nullptr;  // 11.8 on
  decltype(&cuCtxGetId) get_context_id = nullptr;          // 12.0 on
};

EntryPoints find_entry_points() {
  void* library = driver_library();
  if (library == nullptr) return {};
  const EntryPoints found = {
      .launch_kernel =
          reinterpret_cast<decltype(&cuLaunchKernel)>(dlsym(library, "cuLaunchKernel")),
      .launch_kernel_ex =
          reinterpret_cast<decltype(&cuLaunchKernelEx)>(dlsym(library, "cuLaunchKernelEx")),
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

// The runtime's attributes are the driver's, under other names.
static_assert(sizeof(cudaLaunchAttribute) == sizeof(CUlaunchAttribute) &&
              static_cast<int>(cudaLaunchAttributePriority) ==
                  static_cast<int>(CU_LAUNCH_ATTRIBUTE_PRIORITY) &&
              static_cast<int>(cudaLaunchAttributeProgrammaticStreamSerialization) ==
                  static_cast<int>(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION));

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

// As the current context has it; null if only the runtime can launch it.
CUfunction loaded_function(const void* kernel) {
  const uint64_t context = current_context_id();
  if (context == 0) return nullptr;
  CUfunction function = loaded_kernels.find(kernel, context);
  return function != nullptr ? function : load(kernel, context);
}

}  // namespace

uint64_t current_context_id() {
  const auto get_id = entry_points().get_context_id;
  unsigned long long id = 0;
  return get_id != nullptr && get_id(nullptr, &id) == CUDA_SUCCESS ? id : 0;
}

cudaError_t launch(const void* kernel, dim3 blocks, dim3 threads, void** arguments,
                   size_t shared_bytes, cudaStream_t stream) {
  CUfunction function = loaded_function(kernel);
  if (function != nullptr &&
      entry_points().launch_kernel(function, blocks.x, blocks.y, blocks.z, threads.x, threads.y,
                                   threads.z, static_cast<unsigned>(shared_bytes), stream,
                                   arguments, nullptr) == CUDA_SUCCESS) {
    return cudaSuccess;
  }
  // Nothing has been launched. If something is wrong, this says what, in the runtime's words.
  return cudaLaunchKernel(kernel, blocks, threads, arguments, shared_bytes, stream);
}

cudaError_t launch_with(const LaunchOptions& options, const void* kernel, dim3 blocks, dim3 threads,
                        void** arguments, cudaStream_t stream) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (options.priority != 0) {
    attributes[count].id = cudaLaunchAttributePriority;
    attributes[count++].val.priority = options.priority;
  }
  if (options.may_overlap) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  const auto launch_kernel_ex = entry_points().launch_kernel_ex;
  CUfunction function = launch_kernel_ex != nullptr ? loaded_function(kernel) : nullptr;
  if (function != nullptr) {
    const CUlaunchConfig config = {.gridDimX = blocks.x,
                                   .gridDimY = blocks.y,
                                   .gridDimZ = blocks.z,
                                   .blockDimX = threads.x,
                                   .blockDimY = threads.y,
                                   .blockDimZ = threads.z,
                                   .sharedMemBytes = 0,
                                   .hStream = stream,
                                   .attrs = reinterpret_cast<CUlaunchAttribute*>(attributes),
                                   .numAttrs = count};
    if (launch_kernel_ex(&config, function, arguments, nullptr) == CUDA_SUCCESS) return cudaSuccess;
  }
  // As above.
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelExC(&config, kernel, arguments);
}

}  // namespace kvops::cuda
