// What kernels of the current device can reach behind an address, and how many tokens of a table's
// layers that are. Used by the kernel forms: host pools are looked at in every call, addresses of
// tables in checked mode only, because they have to be copied to the host for it.
#pragma once

#include <cstdint>

#include "common/cuda/context.h"
#include "swap/cuda/memory_map.h"
#include "transfer/params.h"

namespace kvops::cuda {

// Whether all of a pool (not of a table) can be read and written by kernels.
bool is_reachable(MemoryMap& map, int device, const TokenMemory& memory);

// Tokens that lie in memory behind every address of the side's tables: fewer than kUnknownTokens
// only if `indices` (on the host) go beyond them. Copies the tables, so it waits for the stream;
// throws for a null address.
int64_t reachable_tokens(const CudaContext& context, MemoryMap& map, const TransferParams& params,
                         const TransferSide& side, const int64_t* indices);

}  // namespace kvops::cuda
