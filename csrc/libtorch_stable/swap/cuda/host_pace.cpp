// See host_pace.h. Threads that meet here lose a measurement at most.
#include "swap/cuda/host_pace.h"

#include <atomic>

namespace kvops::cuda {
namespace {

constexpr int kMaxDevices = 64;
constexpr int kCallsBelieved = 64;

struct Pace {
  std::atomic<double> microseconds{0};
  std::atomic<int> calls_left{0};
};
Pace paces[kMaxDevices];

Pace* pace_of(int device) { return 0 <= device && device < kMaxDevices ? &paces[device] : nullptr; }

}  // namespace

double host_pace(int device) {
  const Pace* pace = pace_of(device);
  return pace != nullptr ? pace->microseconds.load(std::memory_order_relaxed) : 0;
}

void note_host_pace(int device, double microseconds) {
  Pace* pace = pace_of(device);
  if (pace == nullptr) return;
  const double before = pace->microseconds.load(std::memory_order_relaxed);
  pace->microseconds.store(before > 0 ? (before + microseconds) / 2 : microseconds,
                           std::memory_order_relaxed);
  pace->calls_left.store(kCallsBelieved, std::memory_order_relaxed);
}

void note_slow_host(int device) {
  Pace* pace = pace_of(device);
  if (pace == nullptr) return;
  if (pace->calls_left.fetch_sub(1, std::memory_order_relaxed) <= 1) {
    pace->microseconds.store(0, std::memory_order_relaxed);
  }
}

void forget_host_pace(int device) {
  Pace* pace = pace_of(device);
  if (pace != nullptr) pace->microseconds.store(0, std::memory_order_relaxed);
}

}  // namespace kvops::cuda
