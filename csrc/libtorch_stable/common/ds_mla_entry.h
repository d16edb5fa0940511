// The fp8_ds_mla entry of one token: 512 e4m3 latent elements, 4 float tile scales, 64 elements of
// 2 bytes (rope) as they are. Written by mla/, read by gather/.
// Also the tile: 128 elements that share a scale, here and in the indexer cache.
#pragma once

#include <cstdint>

namespace kvops {

inline constexpr int64_t kTileElems = 128;

inline constexpr int64_t kDsMlaLatentElems = 512;
inline constexpr int64_t kDsMlaRopeElems = 64;
inline constexpr int64_t kDsMlaScalesByte = kDsMlaLatentElems;
inline constexpr int64_t kDsMlaRopeByte =
    kDsMlaScalesByte + kDsMlaLatentElems / kTileElems * static_cast<int64_t>(sizeof(float));
inline constexpr int64_t kDsMlaEntryBytes = kDsMlaRopeByte + 2 * kDsMlaRopeElems;
static_assert(kDsMlaEntryBytes == 656);

}  // namespace kvops
