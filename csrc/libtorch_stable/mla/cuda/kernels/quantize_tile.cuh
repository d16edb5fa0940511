// Quantises tiles of 128 bfloat16 elements to float8 e4m3, each by a scale of its own: 8 lanes take
// a tile, each of them 16 neighbours. Used by the fp8_ds_mla entry and the indexer cache.
// NaN does not count as a magnitude, and is stored as 0x7f. Every lane of the warp must call.
#pragma once

#include <cuda_bf16.h>

#include <cfloat>
#include <cstdint>

#include "common/cuda/fp8_quotient.cuh"
#include "common/cuda/vec.cuh"
#include "common/ds_mla_entry.h"

namespace kvops::kernels {

inline constexpr uint32_t kTileLanes = 8;
inline constexpr uint32_t kUnitElems = 8;
inline constexpr uint32_t kShareElems = kTileElems / kTileLanes;

using TileUnit = Packed<bfloat16_t, kUnitElems>;
using TileShare = Packed<bfloat16_t, kShareElems>;  // a lane's part of a tile

// ---- moving units, and scales, at any alignment if not kAligned

template <bool kAligned, int kCount>
__device__ __forceinline__ Packed<bfloat16_t, kCount> load_elems(const bfloat16_t* from) {
  if constexpr (kAligned) {
    return load_packed<kCount>(from);
  } else {
    Elems<bfloat16_t, kCount> elems;
#pragma unroll
    for (int i = 0; i < kCount; ++i) elems.of[i] = from[i];
    return __builtin_bit_cast(Packed<bfloat16_t, kCount>, elems);
  }
}

template <bool kAligned>
__device__ __forceinline__ TileShare load_share(const bfloat16_t* tile, uint32_t lane) {
  return load_elems<kAligned, kShareElems>(tile + lane * kShareElems);
}

template <bool kAligned, class Words>
__device__ __forceinline__ void store_aligned(char* to, const Words& words) {
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
__device__ __forceinline__ float tile_amax(const TileShare& share) {
  const auto words = __builtin_bit_cast(Elems<__nv_bfloat162_raw, sizeof(share) / 4>, share);
  __nv_bfloat162 largest(__nv_bfloat162_raw{0, 0});
#pragma unroll
  for (const __nv_bfloat162_raw& word : words.of) {
    largest = __hmax2(largest, __habs2(__nv_bfloat162(word)));  // ignores NaN
  }
  float amax = fmaxf(__low2float(largest), __high2float(largest));
#pragma unroll
  for (uint32_t lanes = kTileLanes / 2; lanes > 0; lanes /= 2) {
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, lanes, kTileLanes));
  }
  return amax;
}

// amax / 448, correctly rounded for the amax of bfloat16 elements wherever that is FLT_MIN or more;
// infinity stays infinity. Not a division, which costs a branch.
__device__ __forceinline__ float tile_scale(float amax) {
  constexpr float kReciprocal = 1.0f / 448.0f;
  const float quotient = __fmul_rn(amax, kReciprocal);
  const float rest = __fmaf_rn(-quotient, 448.0f, amax);
  return amax <= FLT_MAX ? __fmaf_rn(rest, kReciprocal, quotient) : amax;
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
  const float scale = tile_scale(amax);
  if (power_of_two) return round_up_to_power_of_two(fmaxf(scale, kMinPowerOfTwoScale));
  return fmaxf(scale, FLT_MIN);
}

__device__ __forceinline__ float indexer_scale(float amax, bool power_of_two) {
  constexpr float kMinAmax = 1e-4f;
  const float scale = tile_scale(fmaxf(amax, kMinAmax));
  return power_of_two ? round_up_to_power_of_two(scale) : scale;
}

// ---- the bytes of a tile

template <bool kAligned>
__device__ __forceinline__ void store_share(char* tile, uint32_t lane, const TileShare& share,
                                            float scale) {
  const Fp8Quotient quotient(scale);
  store_aligned<kAligned>(tile + lane * kShareElems,
                          quotient.divide<e4m3_t, bfloat16_t, kShareElems>(share));
}

}  // namespace kvops::kernels
