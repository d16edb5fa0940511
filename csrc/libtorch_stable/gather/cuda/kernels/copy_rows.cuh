// The movers that copy entries as they are.
// Launched through launch_gather: CopyRows by launch_copy_rows, CopyKeysAndScales by
// cp_gather_indexer_k_quant_cache, whose keys and scales lie apart and go to two tensors.
#pragma once

#include "common/cuda/vec.cuh"
#include "gather/cuda/kernels/gather.cuh"

namespace kvops::kernels {

__device__ __forceinline__ const char* entry_address(const EntryRows& r, const Entry& entry) {
  return r.src + entry.block * r.block_stride_bytes + entry.offset * r.entry_stride_bytes;
}

__device__ __forceinline__ char* row_address(const EntryRows& r, int64_t row) {
  return r.dst + row * r.row_stride_bytes;
}

// Bytes of the widest unit that divides every pointer, stride and width.
inline int common_unit_bytes(const EntryRows& r) {
  const uint64_t all = reinterpret_cast<uint64_t>(r.src) | reinterpret_cast<uint64_t>(r.dst) |
                       static_cast<uint64_t>(r.block_stride_bytes | r.entry_stride_bytes |
                                             r.row_stride_bytes | r.row_bytes);
  for (int unit : {16, 4, 2}) {
    if (all % unit == 0) return unit;
  }
  return 1;
}

// What movers have in common whose entries lie in one piece.
struct EntryMover {
  static constexpr int kParts = 1;

  EntryRows rows;

  __device__ static int part(int64_t) { return 0; }
  __device__ const char* locate(const Entry& entry, int) const {
    return entry_address(rows, entry);
  }
  __device__ char* place(int64_t row, int) const { return row_address(rows, row); }
  __device__ static float scale() { return 1.0f; }
};

template <class Unit>
struct CopyRows : EntryMover {
  using Loaded = Unit;
  static constexpr int kAlignment = sizeof(Unit);

  int64_t columns;

  explicit CopyRows(const EntryRows& r)
      : EntryMover{r}, columns(r.row_bytes / static_cast<int64_t>(sizeof(Unit))) {}

  __device__ static Unit load(const char* entry, int64_t column) {
    return reinterpret_cast<const Unit*>(entry)[column];
  }
  __device__ static void store(char* to, int64_t column, const Unit& unit, float) {
    store_words(reinterpret_cast<Unit*>(to) + column, unit);
  }
};

// The first columns are the keys, the others the scales.
template <class KeyUnit, class ScaleUnit>
struct CopyKeysAndScales {
  static constexpr int kParts = 2;
  // One of them. Not in the same registers, or the load of one would wait for that of the other.
  struct Loaded {
    KeyUnit key;
    ScaleUnit scale;
  };

  CopyRows<KeyUnit> keys;
  CopyRows<ScaleUnit> scales;
  int64_t columns;

  CopyKeysAndScales(const EntryRows& key_rows, const EntryRows& scale_rows)
      : keys(key_rows), scales(scale_rows), columns(keys.columns + scales.columns) {}

  __device__ int part(int64_t column) const { return column < keys.columns ? 0 : 1; }
  __device__ const char* locate(const Entry& entry, int part) const {
    return entry_address(part == 0 ? keys.rows : scales.rows, entry);
  }
  __device__ char* place(int64_t row, int part) const {
    return row_address(part == 0 ? keys.rows : scales.rows, row);
  }
  __device__ static float scale() { return 1.0f; }
  __device__ Loaded load(const char* entry, int64_t column) const {
    Loaded loaded;
    if (part(column) == 0) {
      loaded.key = keys.load(entry, column);
    } else {
      loaded.scale = scales.load(entry, column - keys.columns);
    }
    return loaded;
  }
  __device__ void store(char* to, int64_t column, const Loaded& loaded, float) const {
    if (part(column) == 0) {
      keys.store(to, column, loaded.key, 1.0f);
    } else {
      scales.store(to, column - keys.columns, loaded.scale, 1.0f);
    }
  }
};

}  // namespace kvops::kernels
