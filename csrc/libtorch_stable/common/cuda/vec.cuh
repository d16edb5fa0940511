// Groups of elements that one instruction loads or stores, up to 16 bytes of them.
// Used by kernels that move rows; the address must be a multiple of the group's size.
#pragma once

#include <cstdint>

namespace kvops::kernels {

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vec {
  static_assert(sizeof(T) * kCount <= 16);
  T elems[kCount];
};

template <int kCount, class T>
static __device__ __forceinline__ Vec<T, kCount> load_vec(const T* from) {
  return *reinterpret_cast<const Vec<T, kCount>*>(from);
}

template <class T, int kCount>
static __device__ __forceinline__ void store_vec(T* to, const Vec<T, kCount>& value) {
  *reinterpret_cast<Vec<T, kCount>*>(to) = value;
}

}  // namespace kvops::kernels
