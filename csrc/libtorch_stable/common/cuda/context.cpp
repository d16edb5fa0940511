// Device, stream and errors of a CUDA call. See context.h.
#include "common/cuda/context.h"

#include <atomic>
#include <stdexcept>
#include <string>

#include "common/cuda/driver.h"
#include "common/cuda/driver_launch.h"
#include "common/cuda/skip_record.h"

namespace kvops::cuda {
namespace {

[[noreturn]] void fail(const char* op, const std::string& what) {
  throw std::runtime_error(std::string("kvops::") + op + ": " + what);
}

constexpr int kMaxDevices = 64;

// For each device, a context of which our runtime has said that it is one of that device: that
// stays so, and the id alone is quicker to ask for.
std::atomic<uint64_t> known_context[kMaxDevices];

// Asked of the driver's current context, by which a launch goes: torch may name a device that it
// has not switched to yet. `context` receives its id; 0 if it is none, or not the device's.
bool is_current(int32_t device, uint64_t& context) {
  context = device >= 0 && device < kMaxDevices ? current_context_id() : 0;
  if (context != 0 && known_context[device].load(std::memory_order_relaxed) == context) return true;
  int current = -1;
  if (cudaGetDevice(&current) != cudaSuccess || current != device) {
    context = 0;
    return false;
  }
  if (context != 0) known_context[device].store(context, std::memory_order_relaxed);
  return true;
}

}  // namespace

CudaContext::CudaContext(const char* op, const Tensor& tensor)
    : CudaContext(op, tensor.get_device_index()) {}

CudaContext::CudaContext(const char* op, int32_t device) : op_(op), device_(device) {
  if (!driver_problem().empty()) fail(op, driver_problem());
  // Almost always the device is the current one: a guard would cost as much as all checks.
  if (!is_current(device_, context_id_) &&
      aoti_torch_create_cuda_guard(device_, &guard_) != AOTI_TORCH_SUCCESS) {
    fail(op, "torch could not switch to cuda:" + std::to_string(device_));
  }
  void* stream = nullptr;
  if (aoti_torch_get_current_cuda_stream(device_, &stream) != AOTI_TORCH_SUCCESS) {
    restore_device();
    fail(op, "torch has no current stream of cuda:" + std::to_string(device_));
  }
  stream_ = static_cast<cudaStream_t>(stream);
}

CudaContext::~CudaContext() { restore_device(); }

void CudaContext::restore_device() {
  if (guard_ != nullptr) aoti_torch_delete_cuda_guard(guard_);
}

SkipReport CudaContext::skips(const char* argument) const {
  return {.record = skip_record(device_), .op = op_, .argument = argument};
}

void CudaContext::check(cudaError_t error, const char* what) const {
  if (error == cudaSuccess) return;
  // Ours only: torch's runtime is another one and has its own last error.
  cudaGetLastError();
  fail(op_, std::string("CUDA ") + what + " failed: " + cudaGetErrorString(error));
}

}  // namespace kvops::cuda
