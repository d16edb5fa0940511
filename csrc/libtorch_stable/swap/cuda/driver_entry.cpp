// Finds the driver's entry points. See driver_entry.h.
// The batch call comes from cuGetProcAddress with a version: dlsym of the name would give whatever
// this driver calls by it, and the runtime's look-up asks for the runtime's own version.
#include "swap/cuda/driver_entry.h"

#include <dlfcn.h>

#include "common/cuda/driver.h"

namespace kvops::cuda {
namespace {

// The first version with the batch call, and the one whose 9 arguments we pass.
constexpr int kBatchVersion = 12080;

// The attributes go to the driver as they are: their layout is part of the ABI we rely on.
static_assert(sizeof(CUmemcpyAttributes) == 24 && sizeof(CUmemLocation) == 8);

template <class Function>
Function find(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

MemcpyBatchAsync12080 find_batch_call(void* library) {
  const auto get_version = find<decltype(&cuDriverGetVersion)>(library, "cuDriverGetVersion");
  int version = 0;
  if (get_version == nullptr || get_version(&version) != CUDA_SUCCESS || version < kBatchVersion) {
    return nullptr;
  }
  using GetProcAddress =
      CUresult(CUDAAPI*)(const char*, void**, int, cuuint64_t, CUdriverProcAddressQueryResult*);
  const auto get_proc_address = find<GetProcAddress>(library, "cuGetProcAddress_v2");
  if (get_proc_address == nullptr) return nullptr;
  void* function = nullptr;
  CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  const CUresult error = get_proc_address("cuMemcpyBatchAsync", &function, kBatchVersion,
                                          CU_GET_PROC_ADDRESS_DEFAULT, &status);
  if (error != CUDA_SUCCESS || status != CU_GET_PROC_ADDRESS_SUCCESS) return nullptr;
  return reinterpret_cast<MemcpyBatchAsync12080>(function);
}

DriverEntry find_all(void* library) {
  if (library == nullptr) return {};
  return {
      .memcpy_async = find<decltype(&cuMemcpyAsync)>(library, "cuMemcpyAsync"),
      .pointer_get_attributes =
          find<decltype(&cuPointerGetAttributes)>(library, "cuPointerGetAttributes"),
      .get_error_name = find<decltype(&cuGetErrorName)>(library, "cuGetErrorName"),
      .memcpy_2d_async = find<decltype(&cuMemcpy2DAsync)>(library, "cuMemcpy2DAsync_v2"),
      .memcpy_batch_async = find_batch_call(library),
  };
}

}  // namespace

const DriverEntry* driver_entry() {
  static const DriverEntry entry = find_all(driver_library());
  const bool usable = entry.memcpy_async != nullptr && entry.pointer_get_attributes != nullptr;
  return usable ? &entry : nullptr;
}

std::string error_text(const DriverEntry& driver, CUresult error) {
  const char* name = nullptr;
  if (driver.get_error_name == nullptr || driver.get_error_name(error, &name) != CUDA_SUCCESS) {
    name = nullptr;
  }
  const std::string number = std::to_string(static_cast<int>(error));
  return name != nullptr ? std::string(name) + " (" + number + ")" : "error " + number;
}

}  // namespace kvops::cuda
