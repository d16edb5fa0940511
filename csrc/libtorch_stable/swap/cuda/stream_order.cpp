// Orders streams by events; keeps one side stream for each device. See stream_order.h.
// Side streams are shared by all threads and never destroyed: every use of one begins and ends with
// an event, so uses that meet there only wait for each other.
#include "swap/cuda/stream_order.h"

#include <mutex>
#include <string>

#include "common/cuda/capture.h"

namespace kvops::cuda {
namespace {

constexpr int kMaxDevices = 64;

cudaStream_t side_stream(const CudaContext& context) {
  static std::mutex mutex;
  static cudaStream_t streams[kMaxDevices] = {};
  const int device = context.device();
  if (device < 0 || device >= kMaxDevices) context.check(cudaErrorInvalidDevice, "side stream");
  const std::lock_guard<std::mutex> lock(mutex);
  if (streams[device] == nullptr) {
    // Non-blocking: else it would wait for the legacy stream at every step, and that for it.
    const RelaxedCapture relaxed;
    context.check(cudaStreamCreateWithFlags(&streams[device], cudaStreamNonBlocking),
                  "side stream");
  }
  return streams[device];
}

class Event {
 public:
  explicit Event(const CudaContext& context) : context_(context) {
    context.check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "event");
  }
  // Released by CUDA when what waits for it has gone on.
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) const {
    context_.check(cudaEventRecord(event_, stream), "event");
  }
  void wait(const CudaContext& context, cudaStream_t stream) const {
    context.check(cudaStreamWaitEvent(stream, event_, 0), "event");
  }

 private:
  const CudaContext& context_;
  cudaEvent_t event_ = nullptr;
};

}  // namespace

void make_current(const CudaContext& context) {
  context.check(cudaSetDevice(context.device()), "switch of the device");
}

void order_after(const CudaContext& later, const CudaContext& earlier) {
  // An event is of one device, and so is the default stream, which has the same handle everywhere.
  make_current(earlier);
  const Event done(earlier);
  done.record(earlier.stream());
  make_current(later);
  done.wait(later, later.stream());
}

SideStream::SideStream(const CudaContext& context, cudaStream_t main)
    : context_(context), main_(main), side_(side_stream(context)) {
  const Event done(context_);
  done.record(main_);
  done.wait(context_, side_);
}

void SideStream::join() {
  joined_ = true;
  const Event done(context_);
  done.record(side_);
  done.wait(context_, main_);
}

SideStream::~SideStream() {
  if (joined_) return;
  try {
    join();
  } catch (...) {
    // Another error is on its way already.
  }
}

}  // namespace kvops::cuda
