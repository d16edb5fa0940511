// Picks the kernel of a plan. See launch.h.
#include "attention/cuda/kernels/launch.h"

namespace kvops::kernels {
namespace {

LaunchAttention* fma_launch(const PagedAttentionParams& p) {
  switch (p.cache_kind) {
    case CacheKind::kFp8E4m3:
      return launch_fma_e4m3;
    case CacheKind::kFp8E5m2:
      return launch_fma_e5m2;
    default:
      break;
  }
  switch (p.query_dtype) {
    case DType::kHalf:
      return launch_fma_half;
    case DType::kBFloat16:
      return launch_fma_bfloat16;
    default:
      return launch_fma_float;
  }
}

}  // namespace

cudaError_t read_device_limits(int device, DeviceLimits& limits) {
  const struct {
    cudaDeviceAttr attribute;
    int32_t* value;
  } wanted[] = {
      {cudaDevAttrMultiProcessorCount, &limits.multiprocessors},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, &limits.shared_bytes_block},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, &limits.shared_bytes_multiprocessor},
  };
  for (const auto& [attribute, value] : wanted) {
    const cudaError_t error = cudaDeviceGetAttribute(value, attribute, device);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t launch_paged_attention(const PagedAttentionParams& p, const AttentionPlan& plan,
                                   cudaStream_t stream) {
  const cudaError_t error =
      cudaMemsetAsync(plan.workspace.arrivals, 0, static_cast<size_t>(plan.grid) * 4, stream);
  return error != cudaSuccess ? error : fma_launch(p)(p, plan, stream);
}

}  // namespace kvops::kernels
