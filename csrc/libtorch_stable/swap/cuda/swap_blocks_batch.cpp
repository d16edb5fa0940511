// swap_blocks_batch with addresses of devices: stream work of the current device.
// _C's CPU operator hands every call over, since the tables are always on the host; calls that have
// nothing but host memory go back to it. Must not initialise CUDA: a device's address can only come
// from a process that has done so.
#include <stdexcept>
#include <string>
#include <utility>

#include "common/checked_mode.h"
#include "common/checks.h"
#include "common/cuda/capture.h"
#include "common/cuda/context.h"
#include "common/cuda/driver_launch.h"
#include "swap/cuda/copy_run.h"
#include "swap/cuda/stream_order.h"
#include "swap/ops.h"

namespace kvops::cuda {
namespace {

constexpr const char* kOp = "swap_blocks_batch";

// Such a source is written by work of a stream as a rule, and may be read before that is done.
void check_any_order(MemoryMap& memory, const SwapBlocksBatchParams& p) {
  for (int64_t i = 0; i < p.num_copies; ++i) {
    if (p.sizes[i] == 0 || !is_on_device(memory.at(static_cast<uintptr_t>(p.src_ptrs[i])).place))
      continue;
    const Arg arg{kOp, "is_src_access_order_any"};
    fail(arg, "must be False where a source is on a device (checked mode), got True and src_ptrs[" +
                  std::to_string(i) + "] on a device");
  }
}

void run_copies(const CudaContext& context, const DriverEntry& driver,
                const SwapBlocksBatchParams& p, bool any_order, MemoryMap memory) {
  CopyRun run(context, driver,
              {.any_order = any_order, .num_copies = p.num_copies, .total_bytes = p.total_bytes},
              std::move(memory));
  run.add_all(p);
  run.finish();
}

int32_t current_device() {
  int32_t device = 0;
  if (aoti_torch_get_current_device_index(&device) != AOTI_TORCH_SUCCESS) {
    throw std::runtime_error("kvops::swap_blocks_batch: torch has no current CUDA device");
  }
  return device;
}

}  // namespace

bool swap_blocks_batch(const SwapBlocksBatchParams& p, bool any_order) {
  const DriverEntry* driver = driver_entry();
  if (driver == nullptr) return false;
  // No call of the runtime before this look: that could initialise CUDA.
  const uint64_t first_context = current_context_id();
  MemoryMap memory(kOp, driver);
  if (!touches_a_device(memory, p)) return false;
  const RelaxedCapture relaxed;
  if (any_order && checked_mode()) check_any_order(memory, p);
  const CudaContext context(kOp, current_device());
  if (context.context_id() == 0 || context.context_id() != first_context) {
    make_current(context);
    // The answers may be others in another context.
    memory = MemoryMap(kOp, driver);
  }
  run_copies(context, *driver, p, any_order, std::move(memory));
  return true;
}

}  // namespace kvops::cuda
