// Raw memory units that one instruction moves, and whether addresses and strides allow them.
// Used by kernels that move bytes, and by their launch functions.
// A unit's address must be a multiple of its size (of 16 for the unit of 32 bytes).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace kvops::kernels {

// Two accesses of 16 bytes.
struct alignas(16) Raw32 {
  uint4 first;
  uint4 second;
};

template <int kBytes>
struct RawUnit;
template <>
struct RawUnit<1> {
  using Type = uint8_t;
};
template <>
struct RawUnit<2> {
  using Type = uint16_t;
};
template <>
struct RawUnit<4> {
  using Type = uint32_t;
};
template <>
struct RawUnit<8> {
  using Type = uint2;
};
template <>
struct RawUnit<16> {
  using Type = uint4;
};
template <>
struct RawUnit<32> {
  using Type = Raw32;
};

template <int kBytes>
using Raw = typename RawUnit<kBytes>::Type;

template <class Unit>
__device__ __forceinline__ Unit load_unit(const char* address) {
  return *reinterpret_cast<const Unit*>(address);
}

template <class Unit>
__device__ __forceinline__ void store_unit(char* address, const Unit& unit) {
  *reinterpret_cast<Unit*>(address) = unit;
}

// Collects addresses, and strides in bytes; says which power of two divides all of them.
class Alignment {
 public:
  Alignment& with(const void* address) { return with(reinterpret_cast<int64_t>(address)); }
  Alignment& with(int64_t bytes) {
    bits_ |= static_cast<uint64_t>(bytes);
    return *this;
  }
  bool allows(int bytes) const { return bits_ % static_cast<uint64_t>(bytes) == 0; }

 private:
  uint64_t bits_ = 0;
};

}  // namespace kvops::kernels
