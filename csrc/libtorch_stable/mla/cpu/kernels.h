// The CPU kernels of this capability, compiled once per SIMD level.
// Called by the thin operators of mla/cpu; each works on the tokens [begin, end) and never throws.
// A token whose slot (or position) is out of range is skipped.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "mla/params.h"

namespace kvops::cpu {

struct MlaKernels {
  void (*write_entries)(const MlaEntriesParams& params, int64_t begin, int64_t end) noexcept;
  void (*rope_fused)(const RopeFusedParams& params, int64_t begin, int64_t end) noexcept;
  void (*indexer_quant)(const IndexerQuantParams& params, int64_t begin, int64_t end) noexcept;
};

}  // namespace kvops::cpu

KVOPS_DECLARE_KERNELS(MlaKernels, mla_kernels)
