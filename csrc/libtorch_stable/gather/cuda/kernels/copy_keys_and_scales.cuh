// The mover of the indexer cache: keys and scales of an entry lie apart, and go to two tensors.
// Launched through launch_gather by cp_gather_indexer_k_quant_cache.
#pragma once

#include "gather/cuda/kernels/copy_rows.cuh"

namespace kvops::kernels {

// Keys, then scales, of the same entries.
template <class KeyUnit, class ScaleUnit>
struct CopyKeysAndScales {
  CopyRows<KeyUnit> keys;
  CopyRows<ScaleUnit> scales;

  __device__ void move(const Entry* entries, int64_t first_row, int count) const {
    keys.move(entries, first_row, count);
    scales.move(entries, first_row, count);
  }
};

inline cudaError_t launch_copy_keys_and_scales(const GatherTables& tables, const EntryRows& keys,
                                               const EntryRows& scales, int multiprocessors,
                                               cudaStream_t stream) {
  const auto launch = [&](const auto& mover) {
    return launch_gather(tables, mover, keys.row_bytes + scales.row_bytes, multiprocessors, stream);
  };
  const bool wide_scales = common_unit_bytes(scales) >= 4;
  if (common_unit_bytes(keys) == 16 && wide_scales) {
    return launch(
        CopyKeysAndScales<uint4, uint32_t>{CopyRows<uint4>(keys), CopyRows<uint32_t>(scales)});
  }
  if (common_unit_bytes(keys) >= 4 && wide_scales) {
    return launch(CopyKeysAndScales<uint32_t, uint32_t>{CopyRows<uint32_t>(keys),
                                                        CopyRows<uint32_t>(scales)});
  }
  return launch(
      CopyKeysAndScales<uint8_t, uint8_t>{CopyRows<uint8_t>(keys), CopyRows<uint8_t>(scales)});
}

}  // namespace kvops::kernels
