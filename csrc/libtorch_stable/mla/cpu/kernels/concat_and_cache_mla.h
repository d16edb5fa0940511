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
  quantize_tiles(tiles, kTiles, [](float amax) { return ds_mla_scale(amax); });
  __builtin_memcpy(entry + kDsMlaRopeByte, k_pe, kDsMlaEntryBytes - kDsMlaRopeByte);
}

void write_entries(const MlaEntriesParams& p, int64_t begin, int64_t end) noexcept {
  const EntryWriter write =
      p.kind == CacheKind::kFp8DsMla ? write_ds_mla_entry : plain_entry_writer(p);
  for (int64_t token = begin; token < end; ++token) {
    if (char* entry = entry_of(p, token)) write(p, token, entry);
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
