// What kernels can reach behind an address. See reachable.h.
#include "transfer/cuda/reachable.h"

#include <algorithm>

#include "common/cuda/host_indices.h"
#include "transfer/validate.h"

namespace kvops::cuda {
namespace {

// Pools may be mapped in several pieces, one after the other. At least what is wanted, or less if
// there is no more.
int64_t reachable_bytes(MemoryMap& map, int device, uintptr_t from, int64_t wanted) {
  int64_t found = 0;
  while (found < wanted) {
    const uintptr_t at = from + static_cast<uintptr_t>(found);
    const MemoryRange range = map.at(at);
    const bool is_elsewhere = range.place == Place::kDevice && range.device != device;
    if (!range.kernel_reachable || is_elsewhere) break;
    found += static_cast<int64_t>(range.end - at);
  }
  return found;
}

int64_t bytes_up_to(int64_t token, int64_t item_bytes) {
  int64_t bytes = 0;
  const bool too_large =
      __builtin_add_overflow(token, 1, &token) || __builtin_mul_overflow(token, item_bytes, &bytes);
  return too_large ? INT64_MAX : bytes;
}

}  // namespace

bool is_reachable(MemoryMap& map, int device, const TokenMemory& memory) {
  const auto base = reinterpret_cast<uintptr_t>(memory.base);
  return reachable_bytes(map, device, base, memory.bytes) >= memory.bytes;
}

int64_t reachable_tokens(const CudaContext& context, MemoryMap& map, const TransferParams& p,
                         const TransferSide& side, const int64_t* indices) {
  const int64_t item_bytes = side.strides.page_bytes;
  const int64_t last = *std::max_element(indices, indices + p.num_items);
  const int64_t wanted = last < 0 ? 0 : bytes_up_to(last, item_bytes);
  int64_t tokens = kUnknownTokens;
  for (int part = 0; part < p.num_parts; ++part) {
    const TokenMemory& memory = side.memory[part];
    const HostIndices table(context, memory.name, memory.layers, p.num_layers);
    check_addresses(p.op, memory.name, table.data(), p.num_layers);
    for (int64_t layer = 0; layer < p.num_layers; ++layer) {
      const auto address = static_cast<uintptr_t>(table.data()[layer]);
      const int64_t bytes = reachable_bytes(map, context.device(), address, wanted);
      if (bytes < wanted) tokens = std::min(tokens, bytes / item_bytes);
    }
  }
  return tokens;
}

}  // namespace kvops::cuda
