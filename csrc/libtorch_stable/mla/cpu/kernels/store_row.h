// Writes a row of a cache entry: float8 of x / scale, or the row as it is.
// Used by the MLA kernels of every SIMD level; plain loops that compilers vectorise.
// A true division, rounded once: a reciprocal would change bytes (spec 4.3).
#pragma once

#include <cstdint>

#include "common/float_convert.h"
#include "common/isa.h"
#include "mla/cpu/kernels/convert_row.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

template <class In, class Out>
inline void store_row(const In* __restrict__ in, int64_t count, float scale,
                      Out* __restrict__ out) {
  for (int64_t i = 0; i < count; ++i) out[i] = from_float<Out>(to_float(in[i]) / scale);
}

// By way of floats, for the sake of widen_row().
template <class Out>
inline void store_row(const half_t* in, int64_t count, float scale, Out* out) {
  constexpr int64_t kChunkElems = 128;
  float chunk[kChunkElems];
  for (int64_t first = 0; first < count; first += kChunkElems) {
    const int64_t elems = count - first < kChunkElems ? count - first : kChunkElems;
    widen_row(in + first, elems, chunk);
    store_row(chunk, elems, scale, out + first);
  }
}

template <class T>
inline void copy_row(const T* in, int64_t count, T* out) {
  __builtin_memcpy(out, in, count * static_cast<int64_t>(sizeof(T)));
}

// "auto": bit for bit, whatever the scale tensor is.
inline void store_row(const half_t* in, int64_t count, float, half_t* out) {
  copy_row(in, count, out);
}
inline void store_row(const bfloat16_t* in, int64_t count, float, bfloat16_t* out) {
  copy_row(in, count, out);
}
inline void store_row(const float* in, int64_t count, float, float* out) {
  copy_row(in, count, out);
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
