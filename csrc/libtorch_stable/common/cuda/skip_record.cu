// The skip record of each device: a global variable of the module, so it needs no allocation.
// See skip_record.h. Every device has its own copy of the variable.
#include <cuda_runtime.h>

#include <atomic>
#include <stdexcept>
#include <string>

#include "common/cuda/capture.h"
#include "common/cuda/skip_record.h"

namespace kvops::cuda {
namespace {

constexpr int kMaxDevices = 64;

__device__ SkipRecord device_record;

// Null until a kernel of ours was to run there.
std::atomic<SkipRecord*> addresses[kMaxDevices];

void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("kvops: ") + what + ": " + cudaGetErrorString(error));
  }
}

class OnDevice {
 public:
  explicit OnDevice(int device) {
    require(cudaGetDevice(&previous_), "cannot ask for the current device");
    require(cudaSetDevice(device), "cannot switch to the device");
  }
  ~OnDevice() { cudaSetDevice(previous_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int previous_ = 0;
};

// A non-blocking stream does not wait for the legacy stream, nor the other way round.
class OwnStream {
 public:
  OwnStream() {
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cannot make a stream");
  }
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;

  void copy(void* to, const void* from, size_t bytes, const char* what) {
    require(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), what);
    require(cudaStreamSynchronize(stream_), what);
  }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace

SkipRecord* skip_record(int device) {
  if (device < 0 || device >= kMaxDevices) {
    throw std::runtime_error("kvops: device index " + std::to_string(device) + " is too high");
  }
  SkipRecord* record = addresses[device].load(std::memory_order_acquire);
  if (record == nullptr) {
    const RelaxedCapture relaxed;
    void* address = nullptr;
    require(cudaGetSymbolAddress(&address, device_record), "cannot load the kernels");
    record = static_cast<SkipRecord*>(address);
    addresses[device].store(record, std::memory_order_release);
  }
  return record;
}

SkipRecord read_skip_record(int device) {
  SkipRecord copy{};
  if (device < 0 || device >= kMaxDevices || addresses[device].load() == nullptr) return copy;
  const RelaxedCapture relaxed;
  const OnDevice on_device(device);
  OwnStream stream;
  // A kernel may be in the middle of writing; it will not be for long.
  for (int attempt = 0; attempt < 100; ++attempt) {
    stream.copy(&copy, addresses[device].load(), sizeof(copy), "cannot read the skip record");
    if (copy.state != 1u) break;
  }
  return copy;
}

void clear_skip_record(int device) {
  if (device < 0 || device >= kMaxDevices || addresses[device].load() == nullptr) return;
  const RelaxedCapture relaxed;
  const OnDevice on_device(device);
  OwnStream stream;
  const SkipRecord empty{};
  stream.copy(addresses[device].load(), &empty, sizeof(empty), "cannot clear the skip record");
}

}  // namespace kvops::cuda
