// Groups of elements that one instruction loads or stores, up to 16 bytes of them.
// Used by kernels that move rows; the address must be a multiple of the group's size.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace kvops::kernels {

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vec {
  static_assert(sizeof(T) * kCount <= 16);
  T elems[kCount];
};

template <int kBytes>
struct PackedBytes;
template <>
struct PackedBytes<16> {
  using Type = uint4;
};
template <>
struct PackedBytes<8> {
  using Type = uint2;
};
template <>
struct PackedBytes<4> {
  using Type = uint32_t;
};
template <>
struct PackedBytes<2> {
  using Type = uint16_t;
};
template <>
struct PackedBytes<1> {
  using Type = uint8_t;
};

// A group as words. To be moved as such, or compilers make an access of each small element; and to
// be kept as such where registers are short, because a small element takes a whole one.
template <class T, int kCount>
using Packed = typename PackedBytes<sizeof(T) * kCount>::Type;

template <int kCount, class T>
static __device__ __forceinline__ Packed<T, kCount> load_packed(const T* from) {
  return *reinterpret_cast<const Packed<T, kCount>*>(from);
}

template <int kCount, class T>
static __device__ __forceinline__ Vec<T, kCount> load_vec(const T* from) {
  return __builtin_bit_cast(Vec<T, kCount>, load_packed<kCount>(from));
}

// To global memory, by instructions that say how wide they are: a plain store of several words may
// be taken apart.
static __device__ __forceinline__ void store_words(uint4* to, uint4 words) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}
static __device__ __forceinline__ void store_words(uint2* to, uint2 words) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(words.x),
               "r"(words.y)
               : "memory");
}
template <class Word>
static __device__ __forceinline__ void store_words(Word* to, Word word) {
  *to = word;
}

template <class T, int kCount>
static __device__ __forceinline__ void store_vec(T* to, const Vec<T, kCount>& value) {
  using Words = Packed<T, kCount>;
  store_words(reinterpret_cast<Words*>(to), __builtin_bit_cast(Words, value));
}

}  // namespace kvops::kernels
