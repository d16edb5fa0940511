// Paged attention on CUDA: index checks in checked mode, plan, workspace, launch. Called by
// paged_attention_v1 and _v2.
#include <stdexcept>
#include <string>

#include "attention/cuda/kernels/launch.h"
#include "attention/ops.h"
#include "attention/validate.h"
#include "common/checked_mode.h"
#include "common/cuda/context.h"
#include "common/cuda/host_indices.h"

namespace kvops::cuda {
namespace {

void check_indices(const CudaContext& context, const PagedAttentionParams& p) {
  if (!checked_mode()) return;
  const int64_t entries = (p.num_seqs - 1) * p.table_seq_stride + p.max_blocks;
  const HostIndices lengths(context, "seq_lens", p.seq_lens, p.num_seqs);
  const HostIndices tables(context, "block_tables", p.block_tables,
                           p.block_tables != nullptr ? entries : 0);
  PagedAttentionParams on_host = p;
  on_host.seq_lens = lengths.data();
  on_host.block_tables = tables.data();
  check_paged_attention_indices(context.op(), on_host);
}

// From torch's allocator: reused in stream order, and part of a graph that is being captured.
Tensor allocate(const CudaContext& context, int64_t bytes) {
  const int64_t stride = 1;
  AtenTensorHandle handle = nullptr;
  if (aoti_torch_empty_strided(1, &bytes, &stride, aoti_torch_dtype_uint8(),
                               aoti_torch_device_type_cuda(), context.device(),
                               &handle) != AOTI_TORCH_SUCCESS) {
    throw std::runtime_error(std::string("kvops::") + context.op() + ": torch could not allocate " +
                             std::to_string(bytes) +
                             " bytes on cuda:" + std::to_string(context.device()));
  }
  return Tensor(handle);
}

}  // namespace

void paged_attention(const char* op, const PagedAttentionParams& p, const Tensor& query) {
  const CudaContext context(op, query);
  if (p.num_seqs == 0) return;
  check_indices(context, p);
  if (p.num_heads == 0) return;
  kernels::DeviceLimits limits;
  context.check(kernels::read_device_limits(context.device(), limits), "device query");
  kernels::AttentionPlan plan = kernels::plan_paged_attention(p, limits);
  const Tensor workspace = allocate(context, kernels::workspace_bytes(p, plan));
  kernels::place_workspace(p, workspace.mutable_data_ptr(), plan);
  plan.skipped_lengths = context.skips("seq_lens");
  plan.skipped_blocks = context.skips("block_tables");
  context.check(kernels::launch_paged_attention(p, plan, context.stream()));
}

}  // namespace kvops::cuda
