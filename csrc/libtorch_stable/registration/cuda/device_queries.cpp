// _C_cuda_utils::get_device_attribute and its special case. See device_queries.h.
// Called from Python, mostly when an engine or a test-suite is imported; no tensor is involved.
// vLLM 0.23 keeps the first answer for ever, whatever is asked next; these ask every time.
#include "registration/cuda/device_queries.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>

#include "common/cuda/driver.h"
#include "common/stable.h"
#include "registration/boxed.h"
#include "registration/kernel_list.h"

namespace kvops::cuda {
namespace {

constexpr const char* kNamespace = "_C_cuda_utils";

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error("_C_cuda_utils::get_device_attribute: " + what);
}

int checked_int(int64_t value, const char* argument) {
  if (value > std::numeric_limits<int>::max() || value < std::numeric_limits<int>::min()) {
    fail(std::string(argument) + " must be an int32, got " + std::to_string(value));
  }
  return static_cast<int>(value);
}

// A negative device_id is the current device.
int64_t get_device_attribute(int64_t attribute, int64_t device_id) {
  if (!driver_problem().empty()) fail(driver_problem());
  int32_t current = 0;
  if (device_id < 0 && aoti_torch_get_current_device_index(&current) != AOTI_TORCH_SUCCESS) {
    fail("torch has no current CUDA device");
  }
  const int device = device_id < 0 ? current : checked_int(device_id, "device_id");
  int value = 0;
  const auto which = static_cast<cudaDeviceAttr>(checked_int(attribute, "attribute"));
  const cudaError_t error = cudaDeviceGetAttribute(&value, which, device);
  if (error != cudaSuccess) {
    cudaGetLastError();
    fail("attribute and device_id must exist, got " + std::to_string(attribute) + " and " +
         std::to_string(device_id) + " (" + cudaGetErrorString(error) + ")");
  }
  return value;
}

int64_t get_max_shared_memory_per_block_device_attribute(int64_t device_id) {
  return get_device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device_id);
}

struct Query {
  Kernel kernel;
  const char* arguments;
};

constexpr Query kQueries[] = {
    {{"get_device_attribute", boxed<&get_device_attribute>}, "int attribute, int device_id"},
    {{"get_max_shared_memory_per_block_device_attribute",
      boxed<&get_max_shared_memory_per_block_device_attribute>},
     "int device_id"},
};

void define(const Query& query) {
  using Library = torch::stable::detail::StableLibrary;
  // Never deleted: deleting a library object takes its registrations back.
  auto* fragment = new Library(Library::Kind::FRAGMENT, kNamespace, nullptr, __FILE__, __LINE__);
  fragment->def((std::string(query.kernel.name) + "(" + query.arguments + ") -> int").c_str());
  auto* impl =
      new Library(Library::Kind::IMPL, kNamespace, "CompositeExplicitAutograd", __FILE__, __LINE__);
  impl->impl(query.kernel.name, query.kernel.boxed);
}

}  // namespace

bool claim_device_query(const char* name) {
  for (const Query& query : kQueries) {
    if (std::strcmp(query.kernel.name, name) != 0) continue;
    try {
      define(query);
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }
  return false;
}

}  // namespace kvops::cuda
