// Quantises tiles of 128 bfloat16 elements to float8 e4m3, each by a scale of its own: half a warp
// takes a tile, a lane 8 elements of it. Used by the fp8_ds_mla entry and by the indexer cache.
// NaN does not count as a magnitude, and is stored as 0x7f. Every lane of the warp must call.
#pragma once

#include <cfloat>
#include <cstdint>

#include "common/cuda/fp8_quotient.cuh"
#include "common/cuda/vec.cuh"
#include "common/ds_mla_entry.h"

namespace kvops::kernels {

inline constexpr float kE4m3Max = 448.0f;
inline constexpr int kTileLanes = 16;
inline constexpr int kLaneElems = static_cast<int>(kTileElems) / kTileLanes;

using LaneElems = Packed<bfloat16_t, kLaneElems>;
using LaneBytes = Packed<e4m3_t, kLaneElems>;

// ---- moving a lane's share, and a scale, at any alignment if not kAligned

template <bool kAligned>
__device__ __forceinline__ LaneElems load_lane(const bfloat16_t* from) {
  if constexpr (kAligned) {
    return load_packed<kLaneElems>(from);
  } else {
    Vec<bfloat16_t, kLaneElems> elems;
#pragma unroll
    for (int i = 0; i < kLaneElems; ++i) elems.elems[i] = from[i];
    return __builtin_bit_cast(LaneElems, elems);
  }
}

template <bool kAligned, class Words>
__device__ __forceinline__ void store_lane(char* to, const Words& words) {
  if constexpr (kAligned) {
    store_words(reinterpret_cast<Words*>(to), words);
  } else {
    struct Bytes {
      char bytes[sizeof(Words)];
    };
    const Bytes bytes = __builtin_bit_cast(Bytes, words);
#pragma unroll
    for (size_t i = 0; i < sizeof(words); ++i) to[i] = bytes.bytes[i];
  }
}

// ---- scales

// The largest magnitude of the tile, in each of its lanes.
__device__ __forceinline__ float tile_amax(const float (&x)[kLaneElems]) {
  float amax = 0.0f;
#pragma unroll
  for (int i = 0; i < kLaneElems; ++i) amax = fmaxf(amax, fabsf(x[i]));  // ignores NaN
#pragma unroll
  for (int lanes = kTileLanes / 2; lanes > 0; lanes /= 2) {
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, lanes, kTileLanes));
  }
  return amax;
}

// By the exponent bits. The definition is 2^ceil(log2(scale)) with log2 rounded to float, which may
// be a power less for a scale just above one; no scale that comes from a bfloat16 is so near.
__device__ __forceinline__ float round_up_to_power_of_two(float scale) {
  const uint32_t bits = float_bits(scale);
  const uint32_t rounded = (bits + 0x007fffffu) & 0x7f800000u;
  return bits_float(bits >= 0x7f800000u ? bits : rounded);
}

__device__ __forceinline__ float ds_mla_scale(float amax, bool power_of_two) {
  constexpr float kMinPowerOfTwoScale = 1e-4f;
  const float scale = __fdiv_rn(amax, kE4m3Max);
  if (power_of_two) return round_up_to_power_of_two(fmaxf(scale, kMinPowerOfTwoScale));
  return fmaxf(scale, FLT_MIN);
}

__device__ __forceinline__ float indexer_scale(float amax, bool power_of_two) {
  constexpr float kMinAmax = 1e-4f;
  const float scale = __fdiv_rn(fmaxf(amax, kMinAmax), kE4m3Max);
  return power_of_two ? round_up_to_power_of_two(scale) : scale;
}

// ---- a lane's bytes

__device__ __forceinline__ void widen_lane(const LaneElems& packed, float (&x)[kLaneElems]) {
  const auto elems = __builtin_bit_cast(Vec<bfloat16_t, kLaneElems>, packed);
#pragma unroll
  for (int i = 0; i < kLaneElems; ++i) x[i] = widen(elems.elems[i]);
}

__device__ __forceinline__ LaneBytes quantize_lane(const float (&x)[kLaneElems], float scale) {
  Vec<e4m3_t, kLaneElems> bytes;
  Fp8Quotient(scale).divide(x, bytes.elems);
  return __builtin_bit_cast(LaneBytes, bytes);
}

}  // namespace kvops::kernels
