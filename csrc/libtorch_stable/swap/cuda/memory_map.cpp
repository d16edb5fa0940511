// Classifies addresses by the driver's pointer attributes. See memory_map.h.
#include "swap/cuda/memory_map.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace kvops::cuda {
namespace {

// Zero is what the driver leaves or writes for memory that it does not know. Wider than needed
// where it writes an int or a bool: the rest stays zero.
struct Attributes {
  uint64_t memory_type = 0;
  uint64_t is_managed = 0;
  int device = 0;
  CUdeviceptr range_begin = 0;
  size_t range_bytes = 0;
  CUdeviceptr device_pointer = 0;
};

CUresult ask_driver(const DriverEntry& driver, uintptr_t address, Attributes& found) {
  CUpointer_attribute names[] = {
      CU_POINTER_ATTRIBUTE_MEMORY_TYPE,    CU_POINTER_ATTRIBUTE_IS_MANAGED,
      CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
      CU_POINTER_ATTRIBUTE_RANGE_SIZE,     CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
  };
  void* values[] = {&found.memory_type, &found.is_managed,  &found.device,
                    &found.range_begin, &found.range_bytes, &found.device_pointer};
  // The plural form: unknown memory is no error.
  return driver.pointer_get_attributes(sizeof(names) / sizeof(names[0]), names, values, address);
}

MemoryRange pageable(uintptr_t address) {
  return {.begin = address,
          .end = address + 1,
          .place = Place::kPageable,
          .device = -1,
          .kernel_reachable = false};
}

Place place_of(const Attributes& found) {
  if (found.is_managed != 0) return Place::kManaged;
  if (found.memory_type == CU_MEMORYTYPE_DEVICE) return Place::kDevice;
  if (found.memory_type == CU_MEMORYTYPE_HOST) return Place::kPinned;
  return Place::kPageable;
}

}  // namespace

MemoryRange MemoryMap::at(uintptr_t address) {
  const auto after = std::upper_bound(
      known_.begin(), known_.end(), address,
      [](uintptr_t value, const MemoryRange& range) { return value < range.begin; });
  if (after != known_.begin() && std::prev(after)->contains(address)) return *std::prev(after);
  const MemoryRange range = ask(address);
  if (range.end - range.begin > 1) known_.insert(after, range);
  return range;
}

MemoryRange MemoryMap::ask(uintptr_t address) {
  if (driver_ == nullptr) return pageable(address);
  Attributes found;
  const CUresult error = ask_driver(*driver_, address, found);
  if (error == CUDA_ERROR_NOT_INITIALIZED || error == CUDA_ERROR_DEINITIALIZED) {
    // No CUDA in this process, or not in this child of one: no address can be a device's.
    driver_ = nullptr;
    return pageable(address);
  }
  if (error != CUDA_SUCCESS) {
    throw std::runtime_error(std::string("kvops::") + op_ +
                             ": cuPointerGetAttributes failed: " + error_text(*driver_, error));
  }
  MemoryRange range = pageable(address);
  range.place = place_of(found);
  if (range.place == Place::kPageable) return range;
  range.device = range.place == Place::kDevice ? found.device : -1;
  const uintptr_t begin = found.range_begin;
  if (begin <= address && address - begin < found.range_bytes) {
    range.begin = begin;
    range.end = begin + found.range_bytes;
    // Some devices see registered memory at other addresses than the host: not for kernels then.
    range.kernel_reachable = range.place != Place::kManaged && found.device_pointer == address;
  }
  return range;
}

bool touches_a_device(MemoryMap& memory, const SwapBlocksBatchParams& p) {
  const auto is_device_address = [&memory](int64_t address) {
    return is_on_device(memory.at(static_cast<uintptr_t>(address)).place);
  };
  for (int64_t i = 0; i < p.num_copies; ++i) {
    if (p.sizes[i] == 0) continue;
    if (is_device_address(p.src_ptrs[i]) || is_device_address(p.dst_ptrs[i])) return true;
  }
  return false;
}

}  // namespace kvops::cuda
