// The mover that turns fp8_ds_mla entries into rows of bfloat16.
// Launched through launch_gather by cp_gather_and_upconvert_fp8_kv_cache.
// A unit is 16 bytes of a row: 8 latent elements with the scale of their tile, or 8 rope elements
// as they are. Entries may lie at any address; wide accesses where they allow it.
#pragma once

#include "gather/cuda/kernels/copy_rows.cuh"
#include "gather/cuda/kernels/widen_fp8.cuh"

namespace kvops::kernels {

template <bool kAligned>
struct UpconvertRows : EntryMover {
  static constexpr int kAlignment = kAligned ? 16 : 1;
  static constexpr int64_t kUnitElems = 8;
  static constexpr int64_t kLatentColumns = kDsMlaLatentElems / kUnitElems;
  static constexpr int64_t columns = kDsMlaRowElems / kUnitElems;

  // Two loads for either kind, so that none waits for another to the same registers.
  struct Loaded {
    uint2 first;   // latent elements, or half of the rope elements
    uint2 second;  // the scales of two tiles, or the other half
  };

  template <class Word>
  static __device__ Word load_word(const char* from) {
    if constexpr (kAligned) {
      return *reinterpret_cast<const Word*>(from);
    } else {
      Word word;
      for (int i = 0; i < static_cast<int>(sizeof(Word)); ++i) {
        reinterpret_cast<char*>(&word)[i] = from[i];
      }
      return word;
    }
  }

  __device__ static bool is_rope(int64_t column) { return column >= kLatentColumns; }
  __device__ static int64_t tile(int64_t column) { return column * kUnitElems / kTileElems; }

  __device__ static Loaded load(const char* entry, int64_t column) {
    const int64_t rope_byte = kDsMlaRopeByte + (column - kLatentColumns) * 16;
    const int64_t scales_byte = kDsMlaScalesByte + tile(column) / 2 * 8;
    return {load_word<uint2>(entry + (is_rope(column) ? rope_byte : column * kUnitElems)),
            load_word<uint2>(entry + (is_rope(column) ? rope_byte + 8 : scales_byte))};
  }
  __device__ static void store(char* row, int64_t column, const Loaded& loaded, float) {
    const uint32_t scale = tile(column) % 2 == 0 ? loaded.second.x : loaded.second.y;
    const uint4 words =
        is_rope(column) ? uint4{loaded.first.x, loaded.first.y, loaded.second.x, loaded.second.y}
                        : widen_scaled<e4m3_t>(loaded.first, __uint_as_float(scale), bfloat16_t{});
    char* const to = row + column * 16;
    if constexpr (kAligned) {
      store_words(reinterpret_cast<uint4*>(to), words);
    } else {
      const auto elems = __builtin_bit_cast(Vec<uint16_t, 8>, words);
      for (int i = 0; i < 8; ++i) reinterpret_cast<uint16_t*>(to)[i] = elems.elems[i];
    }
  }
};

inline cudaError_t launch_upconvert_rows(const GatherCall& call, const EntryRows& rows) {
  const uint64_t all = reinterpret_cast<uint64_t>(rows.src) | reinterpret_cast<uint64_t>(rows.dst) |
                       static_cast<uint64_t>(rows.block_stride_bytes | rows.entry_stride_bytes |
                                             rows.row_stride_bytes);
  if (all % 16 == 0) {
    return launch_gather(call, UpconvertRows<true>{{rows}});
  }
  return launch_gather(call, UpconvertRows<false>{{rows}});
}

}  // namespace kvops::kernels
