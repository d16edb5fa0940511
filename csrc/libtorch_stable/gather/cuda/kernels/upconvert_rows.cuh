// The mover that turns fp8_ds_mla entries into rows of bfloat16.
// Launched through launch_gather by cp_gather_and_upconvert_fp8_kv_cache.
#pragma once

#include "gather/cuda/kernels/dequantize_rows.cuh"

namespace kvops::kernels {

// fp8_ds_mla entries: 32 packs of latent elements, each with the scale of its tile, then the rope
// elements as they are. Entries may lie at any address; 16-byte loads where they allow it.
template <bool kAligned>
struct UpconvertRows {
  static constexpr int64_t kLatentUnits = kDsMlaLatentElems / kPackElems;
  static constexpr int64_t kRopeUnits = kDsMlaRopeElems * 2 / 16;
  static constexpr int64_t kUnits = kLatentUnits + kRopeUnits;

  EntryRows rows;

  struct Loaded {
    uint4 bytes;
    float scale;
  };

  static __device__ uint4 load_16_bytes(const char* from) {
    if constexpr (kAligned) {
      return *reinterpret_cast<const uint4*>(from);
    } else {
      uint4 result;
      char* to = reinterpret_cast<char*>(&result);
      for (int i = 0; i < 16; ++i) to[i] = from[i];
      return result;
    }
  }

  static __device__ void store_16_bytes(char* to, const uint4& value) {
    if constexpr (kAligned) {
      *reinterpret_cast<uint4*>(to) = value;
    } else {
      const uint16_t* from = reinterpret_cast<const uint16_t*>(&value);
      for (int i = 0; i < 8; ++i) reinterpret_cast<uint16_t*>(to)[i] = from[i];
    }
  }

  static __device__ float load_scale(const char* from) {
    if constexpr (kAligned) {
      return *reinterpret_cast<const float*>(from);
    } else {
      float result;
      for (int i = 0; i < 4; ++i) reinterpret_cast<char*>(&result)[i] = from[i];
      return result;
    }
  }

  __device__ void move(const Entry* entries, int64_t first_row, int count) const {
    const auto source = [&](int64_t index) {
      const int64_t row = index / kUnits;
      const int64_t unit = index % kUnits;
      if (entries[row].block < 0) return Loaded{};
      const char* entry = entry_address(rows, entries[row]);
      if (unit >= kLatentUnits) {
        return Loaded{load_16_bytes(entry + kDsMlaRopeByte + (unit - kLatentUnits) * 16), 0.0f};
      }
      const int64_t tile = unit * kPackElems / kTileElems;
      return Loaded{load_16_bytes(entry + unit * kPackElems),
                    load_scale(entry + kDsMlaScalesByte + tile * 4)};
    };
    const auto store = [&](int64_t index, const Loaded& loaded) {
      const int64_t row = index / kUnits;
      const int64_t unit = index % kUnits;
      if (entries[row].block < 0) return;
      char* to = rows.dst + (first_row + row) * rows.row_stride_bytes;
      if (unit >= kLatentUnits) {
        store_16_bytes(to + kDsMlaLatentElems * 2 + (unit - kLatentUnits) * 16, loaded.bytes);
        return;
      }
      Pack<bfloat16_t> pack;
      scale_pack<e4m3_t>(loaded.bytes, loaded.scale, pack);
      const uint4* halves = reinterpret_cast<const uint4*>(&pack);
      store_16_bytes(to + unit * kPackElems * 2, halves[0]);
      store_16_bytes(to + unit * kPackElems * 2 + 16, halves[1]);
    };
    for_units<4, Loaded>(count * kUnits, source, store);
  }
};

inline cudaError_t launch_upconvert_rows(const GatherTables& tables, const EntryRows& rows,
                                         int multiprocessors, cudaStream_t stream) {
  const uint64_t all = reinterpret_cast<uint64_t>(rows.src) | reinterpret_cast<uint64_t>(rows.dst) |
                       static_cast<uint64_t>(rows.block_stride_bytes | rows.entry_stride_bytes |
                                             rows.row_stride_bytes);
  if (all % 16 == 0) {
    return launch_gather(tables, UpconvertRows<true>{rows}, rows.row_bytes, multiprocessors,
                         stream);
  }
  return launch_gather(tables, UpconvertRows<false>{rows}, rows.row_bytes, multiprocessors, stream);
}

}  // namespace kvops::kernels
