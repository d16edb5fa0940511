// Checked mode of the cache writers on CUDA: every slot, before the first byte is written.
// Called by the thin operators between validation and launch; does nothing in normal mode.
#pragma once

#include "cache/params.h"
#include "common/checked_mode.h"
#include "common/cuda/context.h"
#include "common/cuda/host_indices.h"

namespace kvops::cuda {

// Of CacheWriterParams or Nvfp4WriterParams.
template <class Params>
void check_slots_on_device(const CudaContext& context, const Params& p) {
  if (!checked_mode()) return;
  const HostIndices<int64_t> slots(context, "slot_mapping", p.slot_mapping, p.tokens);
  check_slots({context.op(), "slot_mapping"}, slots.data(), p.tokens, p.num_slots);
}

}  // namespace kvops::cuda
