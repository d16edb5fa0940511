// swap_blocks_batch on CPU: copies between addresses of host memory, in the order of the tables.
// Registered as kvops::swap_blocks_batch. Its tables are on the CPU whatever they point to, so the
// CPU key gets calls with device addresses, too, and hands those over to _C_cuda.
#include <atomic>
#include <vector>

#include "swap/cpu/host_copies.h"
#include "swap/ops.h"
#include "swap/paths.h"
#include "swap/validate.h"

namespace kvops::cpu {
namespace {

// Null where _C_cuda is not loaded.
std::atomic<SwapOnDevices*> swap_on_devices{nullptr};

void run_batch(const SwapBlocksBatchParams& p) {
  std::vector<HostCopy> copies;
  copies.reserve(static_cast<size_t>(p.num_copies));
  for (int64_t i = 0; i < p.num_copies; ++i) {
    const auto* from = reinterpret_cast<const char*>(p.src_ptrs[i]);
    auto* to = reinterpret_cast<char*>(p.dst_ptrs[i]);
    if (p.sizes[i] > 0 && from != to) copies.push_back({from, to, p.sizes[i]});
  }
  run_host_copies(copies);
}

}  // namespace

void set_swap_on_devices(SwapOnDevices* implementation) { swap_on_devices = implementation; }

// A host copy has read when it returns: is_src_access_order_any concerns the others only.
void swap_blocks_batch(const Tensor& src_ptrs, const Tensor& dst_ptrs, const Tensor& sizes,
                       bool is_src_access_order_any) {
  const SwapBlocksBatchParams params = validate_swap_blocks_batch(src_ptrs, dst_ptrs, sizes);
  SwapOnDevices* on_devices = swap_on_devices.load(std::memory_order_acquire);
  if (on_devices != nullptr && on_devices(params, is_src_access_order_any)) return;
  run_batch(params);
  note_swap_paths(kSwapHost);
}

}  // namespace kvops::cpu
