// Quantises tiles of 128 bfloat16 elements to float8 e4m3, each by a scale of its own.
// Used by the fp8_ds_mla entry and by the indexer cache, which differ in the scale only.
// NaN does not count as a magnitude (fmax), and is stored as 0x7f.
#pragma once

#include <cstdint>

#include "common/float_convert.h"
#include "common/isa.h"
#include "mla/cpu/kernels/store_row.h"
#include "mla/params.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

constexpr float kE4m3Max = 448.0f;
constexpr int64_t kScaleBytes = sizeof(float);

struct Tile {
  const bfloat16_t* in;  // kTileElems
  char* bytes;           // kTileElems
  char* scale;           // kScaleBytes, at any alignment
};

// Tiles quantised together: the way from an element to its tile's scale is long, so the processor
// is kept busy with other tiles meanwhile.
constexpr int64_t kMaxTiles = 16;

// Not by the exponent bits: log2f of a value just above a small power of two rounds down to its
// exponent, and the recorded scales follow it (spec 17).
inline float round_up_to_power_of_two(float scale) {
  return __builtin_exp2f(__builtin_ceilf(__builtin_log2f(scale)));
}

inline float tile_amax(const bfloat16_t* in) {
  // Magnitudes order like their bits; signed 16-bit lanes, because SSE2 has that maximum.
  int16_t largest = 0;
  for (int64_t i = 0; i < kTileElems; ++i) {
    const int16_t magnitude = static_cast<int16_t>(in[i].bits & 0x7fff);
    const int16_t number = magnitude > 0x7f80 ? int16_t{0} : magnitude;
    largest = largest > number ? largest : number;
  }
  return to_float(bfloat16_t{static_cast<uint16_t>(largest)});
}

// At most kMaxTiles; scale_of(amax) is the scale of a tile.
template <class ScaleOf>
inline void quantize_tiles(const Tile* tiles, int64_t count, const ScaleOf& scale_of) {
  float scales[kMaxTiles];
  for (int64_t i = 0; i < count; ++i) scales[i] = scale_of(tile_amax(tiles[i].in));
  for (int64_t i = 0; i < count; ++i) {
    store_row(tiles[i].in, kTileElems, scales[i], reinterpret_cast<e4m3_t*>(tiles[i].bytes));
    __builtin_memcpy(tiles[i].scale, &scales[i], kScaleBytes);
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
