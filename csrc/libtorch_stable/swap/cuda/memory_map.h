// What is behind an address: pageable host memory, pinned host memory, memory of a device.
// Asks the driver and remembers its answers for the life of the object only, which is one call:
// what was pinned a moment ago may be pageable now. Never initialises CUDA.
#pragma once

#include <cstdint>
#include <vector>

#include "swap/cuda/driver_entry.h"
#include "swap/params.h"

namespace kvops::cuda {

enum class Place : uint8_t {
  kPageable,  // not known to CUDA
  kPinned,    // host memory that CUDA allocated or registered
  kDevice,
  kManaged,  // moves between host and devices
};

// Addresses that the driver sees as one allocation or registration.
struct MemoryRange {
  uintptr_t begin;
  uintptr_t end;
  Place place;
  int device;             // of kDevice; else any
  bool kernel_reachable;  // kernels of the current context may use these addresses

  bool contains(uintptr_t address) const { return begin <= address && address < end; }
};

class MemoryMap {
 public:
  // `op`: for messages. A null driver means that all memory is pageable.
  MemoryMap(const char* op, const DriverEntry* driver) : op_(op), driver_(driver) {}

  // The range around an address. Of pageable memory, and where the driver knows no bounds, that is
  // one byte.
  MemoryRange at(uintptr_t address);

 private:
  MemoryRange ask(uintptr_t address);

  const char* op_;
  const DriverEntry* driver_;
  std::vector<MemoryRange> known_;  // by address
};

inline bool is_on_device(Place place) {
  return place == Place::kDevice || place == Place::kManaged;
}

// Whether a call with these tables is for a device at all.
bool touches_a_device(MemoryMap& memory, const SwapBlocksBatchParams& params);

}  // namespace kvops::cuda
