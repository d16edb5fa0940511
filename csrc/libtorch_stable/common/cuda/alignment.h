// Whether addresses and strides allow wide accesses. Used by the launch functions of kernels that
// choose between units of several widths.
#pragma once

#include <cstdint>

namespace kvops::kernels {

// Collects addresses, and strides in bytes; says which power of two divides all of them.
class Alignment {
 public:
  Alignment& with(const void* address) { return with(reinterpret_cast<int64_t>(address)); }
  Alignment& with(int64_t bytes) {
    bits_ |= static_cast<uint64_t>(bytes);
    return *this;
  }
  Alignment& with(const Alignment& other) {
    bits_ |= other.bits_;
    return *this;
  }
  bool allows(int bytes) const { return bits_ % static_cast<uint64_t>(bytes) == 0; }

 private:
  uint64_t bits_ = 0;
};

}  // namespace kvops::kernels
