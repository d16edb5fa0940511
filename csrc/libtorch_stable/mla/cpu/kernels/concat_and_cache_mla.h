// Writes the MLA entries of a range of tokens, the 656-byte fp8_ds_mla entry included.
// Called by cpu::concat_and_cache_mla.
// Entries may start at any byte.
#pragma once

#include <cfloat>
#include <cstdint>

#include "mla/cpu/kernels/entries.h"
#include "mla/cpu/kernels/quantize_tile.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

inline float ds_mla_scale(float amax) {
  const float scale = amax / kE4m3Max;
  return scale > FLT_MIN ? scale : FLT_MIN;
}

// Such a scale is the same number to readers that keep only its exponent, or only bfloat16 of it.
inline float ds_mla_power_of_two_scale(float amax) {
  constexpr float kMinScale = 1e-4f;
  const float scale = amax / kE4m3Max;
  return round_up_to_power_of_two(scale > kMinScale ? scale : kMinScale);
}

template <bool kPowerOfTwoScales>
void write_ds_mla_entry(const MlaEntriesParams& p, int64_t token, char* entry) {
  constexpr int64_t kTiles = kDsMlaLatentElems / kTileElems;
  static_assert(kTiles <= kMaxTiles);
  const bfloat16_t* kv_c = static_cast<const bfloat16_t*>(p.kv_c) + token * p.kv_c_stride_elems;
  const bfloat16_t* k_pe = static_cast<const bfloat16_t*>(p.k_pe) + token * p.k_pe_stride_elems;
  Tile tiles[kTiles];
  for (int64_t i = 0; i < kTiles; ++i) {
    tiles[i] = {.in = kv_c + i * kTileElems,
                .bytes = entry + i * kTileElems,
                .scale = entry + kDsMlaScalesByte + i * kScaleBytes};
  }
  quantize_tiles(tiles, kTiles, [](float amax) {
    return kPowerOfTwoScales ? ds_mla_power_of_two_scale(amax) : ds_mla_scale(amax);
  });
  constexpr int64_t kRopeBytes = kDsMlaEntryBytes - kDsMlaRopeByte;
  if (p.rope_elems == 0) {
    __builtin_memset(entry + kDsMlaRopeByte, 0, kRopeBytes);
  } else {
    __builtin_memcpy(entry + kDsMlaRopeByte, k_pe, kRopeBytes);
  }
}

void write_entries(const MlaEntriesParams& p, int64_t begin, int64_t end) noexcept {
  EntryWriter write = plain_entry_writer(p);
  if (p.kind == CacheKind::kFp8DsMla) {
    write = p.power_of_two_scales ? write_ds_mla_entry<true> : write_ds_mla_entry<false>;
  }
  for (int64_t token = begin; token < end; ++token) {
    if (char* entry = entry_of(p, token)) write(p, token, entry);
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
