// Rotates a row of pairs (x, y) by (cos, sin) in place: x' = x cos - y sin, y' = y cos + x sin.
// Used by rope_fused; a chunk of pairs at a time, as floats on the stack.
// Rounds as the GPU was recorded to (spec 6.3); any NaN comes out as the positive quiet one.
#pragma once

#include <cstdint>

#include "common/float_convert.h"
#include "common/isa.h"
#include "mla/cpu/kernels/convert_row.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

// What a shorter row leaves of a chunk is computed in vain: loops of a fixed length are faster.
constexpr int64_t kChunkPairs = 32;

struct Chunk {
  float x[kChunkPairs];
  float y[kChunkPairs];
};

// The chunk's pairs in a row: elements (i, i + pairs) of it if kNeox, else (2 i, 2 i + 1).
template <class T, bool kNeox>
struct RowPairs {
  T* row;
  int64_t pairs;
  int64_t first;
  int64_t count;
};

// Interleaved pairs to two rows and back. Written out for 16-bit elements, which compilers would
// move one by one: a pair is one word there, with x in its low half.
inline void split_pairs(const float* pairs, int64_t count, float* x, float* y) {
  for (int64_t i = 0; i < count; ++i) {
    x[i] = pairs[2 * i];
    y[i] = pairs[2 * i + 1];
  }
}
template <class T>
inline void split_pairs(const T* pairs, int64_t count, T* x, T* y) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t pair;
    __builtin_memcpy(&pair, pairs + 2 * i, sizeof(pair));
    x[i].bits = static_cast<uint16_t>(pair);
    y[i].bits = static_cast<uint16_t>(pair >> 16);
  }
}
inline void join_pairs(const float* x, const float* y, int64_t count, float* pairs) {
  for (int64_t i = 0; i < count; ++i) {
    pairs[2 * i] = x[i];
    pairs[2 * i + 1] = y[i];
  }
}
template <class T>
inline void join_pairs(const T* x, const T* y, int64_t count, T* pairs) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t pair = x[i].bits | static_cast<uint32_t>(y[i].bits) << 16;
    __builtin_memcpy(pairs + 2 * i, &pair, sizeof(pair));
  }
}

template <class T>
inline void load_pairs(RowPairs<T, true> from, Chunk& chunk) {
  widen_row(from.row + from.first, from.count, chunk.x);
  widen_row(from.row + from.pairs + from.first, from.count, chunk.y);
}

template <class T>
inline void load_pairs(RowPairs<T, false> from, Chunk& chunk) {
  T x[kChunkPairs];
  T y[kChunkPairs];
  split_pairs(from.row + 2 * from.first, from.count, x, y);
  widen_row(x, from.count, chunk.x);
  widen_row(y, from.count, chunk.y);
}

template <class T>
inline void store_pairs(const Chunk& chunk, RowPairs<T, true> to) {
  narrow_row(chunk.x, to.count, to.row + to.first);
  narrow_row(chunk.y, to.count, to.row + to.pairs + to.first);
}

template <class T>
inline void store_pairs(const Chunk& chunk, RowPairs<T, false> to) {
  T x[kChunkPairs];
  T y[kChunkPairs];
  narrow_row(chunk.x, kChunkPairs, x);
  narrow_row(chunk.y, kChunkPairs, y);
  join_pairs(x, y, to.count, to.row + 2 * to.first);
}

// 16-bit formats round after every operation. Computing in float first does not round twice: it
// has more than twice their precision. The last argument only selects the type.
template <class T>
inline void rotate_chunk(Chunk& chunk, const Chunk& cos_sin, T) {
  Chunk by_cos;
  Chunk by_sin;
  for (int64_t i = 0; i < kChunkPairs; ++i) {
    by_cos.x[i] = chunk.x[i] * cos_sin.x[i];
    by_cos.y[i] = chunk.y[i] * cos_sin.x[i];
    by_sin.x[i] = chunk.x[i] * cos_sin.y[i];
    by_sin.y[i] = chunk.y[i] * cos_sin.y[i];
  }
  round_row(by_cos.x, kChunkPairs, T{});
  round_row(by_cos.y, kChunkPairs, T{});
  round_row(by_sin.x, kChunkPairs, T{});
  round_row(by_sin.y, kChunkPairs, T{});
  for (int64_t i = 0; i < kChunkPairs; ++i) {
    chunk.x[i] = by_cos.x[i] - by_sin.y[i];
    chunk.y[i] = by_cos.y[i] + by_sin.x[i];
  }
}

inline float canonical_nan(float value) { return value == value ? value : bits_float(0x7fffffffu); }

// float: the product with x is fused both times.
inline void rotate_chunk(Chunk& chunk, const Chunk& cos_sin, float) {
  for (int64_t i = 0; i < kChunkPairs; ++i) {
    const float x = chunk.x[i];
    const float y = chunk.y[i];
    const float cos = cos_sin.x[i];
    const float sin = cos_sin.y[i];
    chunk.x[i] = canonical_nan(__builtin_fmaf(x, cos, -(y * sin)));
    chunk.y[i] = canonical_nan(__builtin_fmaf(x, sin, y * cos));
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
