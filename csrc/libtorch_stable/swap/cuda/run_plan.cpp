// Chooses paths and issues the copies. See run_plan.h.
// Within the device always a kernel; over the link a kernel for small blocks, which the driver's
// batch call moves at a tenth of the link's rate; the batch call for what is left, and single
// copies where that cannot be used.
#include "swap/cuda/run_plan.h"

#include <span>
#include <vector>

#include "common/cuda/capture.h"
#include "common/cuda/driver.h"
#include "swap/cuda/driver_copies.h"
#include "swap/cuda/kernels/copy_launch.h"
#include "swap/cuda/kernels/copy_table.h"
#include "swap/cuda/stream_order.h"
#include "swap/paths.h"

namespace kvops::cuda {
namespace {

// Above this the batch call is as fast (H200, PCIe 5), and takes nothing from other kernels.
constexpr size_t kKernelMeanBytes = 256 << 10;
// The link needs no more to be full.
constexpr int kLinkCtas = 16;
constexpr int kDeviceCtasPerSm = 2;
// Large kernel parameters.
constexpr int kLargeTableVersion = 12010;

class Runner {
 public:
  Runner(const CudaContext& context, const DriverEntry& driver, bool any_order)
      : context_(context),
        driver_(driver),
        any_order_(any_order),
        wanted_(wanted_swap_path()),
        capturing_(is_capturing(context.stream())) {}

  void run(const CopyPlan& plan) {
    std::vector<Copy> batch = plan.by_driver;
    std::vector<Copy> single = plan.singly;
    if (kernel_is_for_device()) {
      by_kernel(plan.on_device, device_ctas());
    } else {
      append(batch, plan.on_device);
    }
    if (kernel_is_for_link(plan.over_link)) {
      by_kernel(plan.over_link, kLinkCtas);
    } else {
      append(batch, plan.over_link);
    }
    by_batch_or_singly(batch);
    // Last: the host may have to wait for copies of pageable memory.
    singly(single);
    note_swap_paths(used_);
  }

 private:
  static void append(std::vector<Copy>& to, const std::vector<Copy>& from) {
    to.insert(to.end(), from.begin(), from.end());
  }

  bool kernel_is_for_device() const { return wanted_ == 0 || wanted_ == kSwapKernel; }

  bool kernel_is_for_link(const std::vector<Copy>& copies) const {
    if (wanted_ != 0) return wanted_ == kSwapKernel;
    if (copies.size() < 2) return false;
    size_t bytes = 0;
    for (const Copy& copy : copies) bytes += copy.bytes;
    return bytes / copies.size() < kKernelMeanBytes;
  }

  int device_ctas() const {
    int multiprocessors = 0;
    context_.check(
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, context_.device()),
        "device attribute");
    return multiprocessors * kDeviceCtasPerSm;
  }

  void by_kernel(const std::vector<Copy>& copies, int max_ctas) {
    if (copies.empty()) return;
    used_ |= kSwapKernel;
    const bool large =
        copies.size() > kernels::kSmallTable && driver_version() >= kLargeTableVersion;
    context_.check(large ? kernels::launch_copies_large(copies, max_ctas, context_.stream())
                         : kernels::launch_copies_small(copies, max_ctas, context_.stream()));
  }

  // The batch call returns an error under capture and the copies are lost, so single copies, which
  // become nodes of the graph, take its place there.
  void by_batch_or_singly(std::span<const Copy> copies) {
    const bool worth_it = copies.size() > 1 || wanted_ == kSwapBatch;
    if (!copies.empty() && worth_it && wanted_ != kSwapSingle && !capturing_ &&
        driver_.memcpy_batch_async != nullptr) {
      copies = copies.subspan(by_batch(copies));
    }
    singly(copies);
  }

  // Returns how many copies it has issued.
  size_t by_batch(std::span<const Copy> copies) {
    const BatchOptions options{.op = context_.op(),
                               .stream = context_.stream(),
                               .any_order = any_order_,
                               .chunk_copies = max_descriptors()};
    size_t done = 0;
    if (context_.stream() != nullptr && context_.stream() != cudaStreamLegacy) {
      done = copy_by_batch(driver_, options, copies);
    } else {
      // The driver refuses the legacy default stream, which is torch's default.
      SideStream side(context_, context_.stream());
      BatchOptions on_side = options;
      on_side.stream = side.stream();
      done = copy_by_batch(driver_, on_side, copies);
      side.join();
    }
    if (done > 0) used_ |= kSwapBatch;
    return done;
  }

  void singly(std::span<const Copy> copies) {
    if (copies.empty()) return;
    used_ |= kSwapSingle;
    copy_one_by_one(driver_, context_.op(), context_.stream(), copies);
  }

  const CudaContext& context_;
  const DriverEntry& driver_;
  bool any_order_;
  unsigned wanted_;
  bool capturing_;
  unsigned used_ = 0;
};

}  // namespace

void run_plan(const CudaContext& context, const DriverEntry& driver, const CopyPlan& plan,
              bool any_order) {
  Runner(context, driver, any_order).run(plan);
}

}  // namespace kvops::cuda
