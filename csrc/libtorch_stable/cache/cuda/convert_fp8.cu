// convert_fp8 on CUDA: validate, launch.
// Registered as kvops::convert_fp8 for CUDA tensors.
#include "cache/cuda/kernels/convert_fp8.cuh"

#include "cache/ops.h"
#include "cache/validate.h"
#include "common/cuda/context.h"

namespace kvops::cuda {

void convert_fp8(Tensor& dst_cache, const Tensor& src_cache, double scale,
                 const std::string& kv_cache_dtype) {
  const ConvertFp8Params p = validate_convert_fp8(dst_cache, src_cache, scale, kv_cache_dtype);
  if (src_cache.numel() == 0) return;
  const CudaContext context("convert_fp8", src_cache);
  context.check(kernels::launch_convert_fp8(p, context.stream()));
}

}  // namespace kvops::cuda
