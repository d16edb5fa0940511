// Loads and stores of 16 bytes, through the cache or around it.
// Included by kernel files only: everything is internal to the SIMD level being compiled.
// Streaming stores need addresses that are multiples of 16.
#pragma once

#include <cstdint>

#include "cache/cpu/kernels.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace kvops::cpu::KVOPS_ISA {
namespace {

constexpr int64_t kVectorBytes = 16;
constexpr int64_t kLineBytes = 64;

using Bytes16 = uint8_t __attribute__((vector_size(16)));

inline bool is_vector_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % kVectorBytes == 0;
}

template <class Vector>
inline Vector load_vector(const void* from) {
  static_assert(sizeof(Vector) == kVectorBytes);
  Vector vector;
  __builtin_memcpy(&vector, from, kVectorBytes);
  return vector;
}

template <Stores kStores, class Vector>
inline void store_vector(void* to, Vector vector) {
  static_assert(sizeof(Vector) == kVectorBytes);
#if defined(__x86_64__)
  if constexpr (kStores == Stores::kStreaming) {
    _mm_stream_si128(static_cast<__m128i*>(to), __builtin_bit_cast(__m128i, vector));
    return;
  }
#endif
  __builtin_memcpy(to, &vector, kVectorBytes);
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
