// swap_blocks on CUDA: between a GPU and the host, within a GPU, or between two.
// Registered as kvops::swap_blocks for calls with a CUDA tensor; runs on the current stream of
// dst's device, or of src's if dst is on the host.
// Rows that depend on each other keep their order, at the price of speed.
#include <optional>
#include <vector>

#include "common/checks.h"
#include "common/cuda/capture.h"
#include "common/cuda/context.h"
#include "swap/cuda/block_order.h"
#include "swap/cuda/copy_run.h"
#include "swap/cuda/driver_copies.h"
#include "swap/cuda/kernels/copy_launch.h"
#include "swap/cuda/stream_order.h"
#include "swap/ops.h"
#include "swap/paths.h"
#include "swap/validate.h"

namespace kvops::cuda {
namespace {

constexpr const char* kOp = "swap_blocks";

void check_device(const Tensor& tensor, const char* name) {
  if (!tensor.is_cuda() && !tensor.is_cpu()) {
    fail({kOp, name}, "must be on cuda or on cpu, got another device");
  }
}

// Calls `use` with every row that has something to do, in order.
template <class Use>
void for_each_copy(const SwapBlocksParams& p, const Use& use) {
  for (int64_t i = 0; i < p.num_copies; ++i) {
    const int64_t* pair = p.mapping + i * p.mapping_row_stride_elems;
    const char* from = p.src + pair[0] * p.block_bytes;
    const char* to = p.dst + pair[p.mapping_column_stride_elems] * p.block_bytes;
    if (from == to) continue;
    use(Copy{.src = reinterpret_cast<uintptr_t>(from),
             .dst = reinterpret_cast<uintptr_t>(to),
             .bytes = static_cast<size_t>(p.block_bytes),
             .index = i});
  }
}

void run_in_any_order(const CudaContext& context, const DriverEntry& driver,
                      const SwapBlocksParams& p) {
  CopyRun run(context, driver,
              {.any_order = false,
               .num_copies = p.num_copies,
               .total_bytes = p.num_copies * p.block_bytes});
  for_each_copy(p, [&run](const Copy& copy) { run.add(copy); });
  run.finish();
}

void run_in_order(const CudaContext& context, const DriverEntry& driver, const SwapBlocksParams& p,
                  bool within_device) {
  std::vector<Copy> copies;
  copies.reserve(static_cast<size_t>(p.num_copies));
  for_each_copy(p, [&copies](const Copy& copy) { copies.push_back(copy); });
  if (copies.empty()) return;
  if (within_device) {
    context.check(kernels::launch_copies_in_order(copies, context.stream()));
    note_swap_paths(kSwapKernel);
  } else {
    copy_one_by_one(driver, kOp, context.stream(), copies);
    note_swap_paths(kSwapSingle);
  }
}

// Copies between two GPUs are work of dst's stream: src's stream must have written the blocks
// before, and must not write them again too early.
class PeerOrder {
 public:
  PeerOrder(const CudaContext& target, const Tensor& src) : target_(target), source_(kOp, src) {
    // What is being captured cannot wait for what is not, nor the other way round. The order of a
    // graph's launch is its user's business.
    make_current(source_);
    const bool source_captures = is_capturing(source_.stream());
    make_current(target_);
    active_ = source_captures == is_capturing(target_.stream());
    if (active_) order_after(target_, source_);
  }

  // After the copies were issued.
  void finish() {
    if (active_) order_after(source_, target_);
    make_current(target_);
  }

 private:
  const CudaContext& target_;
  const CudaContext source_;
  bool active_ = false;
};

}  // namespace

void swap_blocks(const Tensor& src, Tensor& dst, int64_t block_size_in_bytes,
                 const Tensor& block_mapping) {
  const SwapBlocksParams p = validate_swap_blocks(src, dst, block_size_in_bytes, block_mapping);
  check_device(src, "src");
  check_device(dst, "dst");
  if (p.num_copies == 0) return;
  const CudaContext context(kOp, dst.is_cuda() ? dst : src);
  const DriverEntry* driver = driver_entry();
  if (driver == nullptr) fail({kOp, "dst"}, "must be reachable by a CUDA driver, got none");
  const RelaxedCapture relaxed;
  make_current(context);
  const bool both_cuda = src.is_cuda() && dst.is_cuda();
  const bool within_device = both_cuda && src.get_device_index() == dst.get_device_index();
  std::optional<PeerOrder> peers;
  if (both_cuda && !within_device) peers.emplace(context, src);
  if (block_order_is_free(p)) {
    run_in_any_order(context, *driver, p);
  } else {
    run_in_order(context, *driver, p, within_device);
  }
  if (peers) peers->finish();
}

}  // namespace kvops::cuda
