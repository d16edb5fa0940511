// The direct forms on CUDA: indices to the host, then the engine of the swaps.
// Registered as kvops::transfer_kv_*direct* for CUDA tensors, through Transfer<> (transfer/ops.h);
// runs on the current stream of dst's device, or of src's if dst is on the host.
#include <optional>

#include "common/checks.h"
#include "common/cuda/capture.h"
#include "common/cuda/host_indices.h"
#include "transfer/cuda/planned.h"
#include "transfer/ops.h"

namespace kvops::cuda {
namespace {

// The host needs to read them: what is on the device is waited for.
class ReadableIndices {
 public:
  ReadableIndices(const CudaContext& context, const char* name, const int64_t* indices,
                  int64_t count, int32_t device)
      : on_host_(indices) {
    if (device < 0) return;
    if (is_capturing(context.stream())) {
      fail({context.op(), name},
           "must be on the host under CUDA graph capture, where nothing can be waited for, got a "
           "CUDA tensor");
    }
    copy_.emplace(context, name, indices, count);
    on_host_ = copy_->data();
  }

  const int64_t* data() const { return on_host_; }

 private:
  const int64_t* on_host_;
  std::optional<HostIndices<int64_t>> copy_;
};

}  // namespace

void run_transfer(const DirectTransferParams& p) {
  if (p.rows.empty() || p.num_items == 0) return;
  const CudaContext context(p.op, p.device);
  const RelaxedCapture relaxed;
  const ReadableIndices src(context, "src_indices", p.src_indices, p.num_items,
                            p.src_indices_device);
  const ReadableIndices dst(context, "dst_indices", p.dst_indices, p.num_items,
                            p.dst_indices_device);
  run_planned(context, {.src_indices = src.data(),
                        .dst_indices = dst.data(),
                        .num_items = p.num_items,
                        .src = p.src,
                        .dst = p.dst,
                        .rows = p.rows});
}

void run_transfer(const EmbeddingRangesParams& p) {
  const CudaContext context(p.op, p.device);
  const RelaxedCapture relaxed;
  run_ranges(context, p);
}

}  // namespace kvops::cuda
