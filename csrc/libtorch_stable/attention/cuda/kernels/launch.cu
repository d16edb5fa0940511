// Picks the kernel of a plan. See launch.h.
// Compiled as CUDA for the list of architectures that there is code for.
#include "attention/cuda/kernels/launch.h"

#include <cstdlib>

#include "common/cuda/newest_code.h"

namespace kvops::kernels {
namespace {

LaunchAttention* mma_launch(const PagedAttentionParams& p) {
  switch (p.cache_kind) {
    case CacheKind::kFp8E4m3:
      return launch_mma_e4m3;
    case CacheKind::kFp8E5m2:
      return launch_mma_e5m2;
    default:
      return p.query_dtype == DType::kHalf ? launch_mma_half : launch_mma_bfloat16;
  }
}

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

// For tools that look for reads of memory that nobody wrote: is_last_arrival() does that on
// purpose.
bool clears_arrivals() {
  static const bool wish = std::getenv("KVOPS_CLEAR_WORKSPACE") != nullptr;
  return wish;
}

}  // namespace

cudaError_t read_device_limits(int device, DeviceLimits& limits) {
  // Asked for once: six questions to the runtime cost as much as a launch.
  thread_local int known_device = -1;
  thread_local DeviceLimits known = {};
  if (device == known_device) {
    limits = known;
    return cudaSuccess;
  }
  int32_t major = 0;
  int32_t minor = 0;
  const struct {
    cudaDeviceAttr attribute;
    int32_t* value;
  } wanted[] = {
      {cudaDevAttrComputeCapabilityMajor, &major},
      {cudaDevAttrComputeCapabilityMinor, &minor},
      {cudaDevAttrMultiProcessorCount, &limits.multiprocessors},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, &limits.shared_bytes_block},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, &limits.shared_bytes_multiprocessor},
      {cudaDevAttrL2CacheSize, &limits.l2_bytes},
  };
  for (const auto& [attribute, value] : wanted) {
    const cudaError_t error = cudaDeviceGetAttribute(value, attribute, device);
    if (error != cudaSuccess) return error;
  }
  limits.architecture = newest_code(major * 10 + minor);
  known = limits;
  known_device = device;
  return cudaSuccess;
}

cudaError_t launch_paged_attention(const PagedAttentionParams& p, const AttentionPlan& plan,
                                   cudaStream_t stream) {
  if (clears_arrivals()) {
    const cudaError_t error = cudaMemsetAsync(plan.workspace.arrivals, 0,
                                              plan.grid * sizeof(*plan.workspace.arrivals), stream);
    if (error != cudaSuccess) return error;
  }
  const bool uses_mma =
      plan.engine == AttentionEngine::kMma8 || plan.engine == AttentionEngine::kMma16;
  LaunchAttention* launch = uses_mma ? mma_launch(p) : fma_launch(p);
  return launch(p, plan, stream);
}

}  // namespace kvops::kernels
