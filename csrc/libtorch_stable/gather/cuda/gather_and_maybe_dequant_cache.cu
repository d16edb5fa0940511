// gather_and_maybe_dequant_cache on CUDA: validate, dispatch by kind and dtype, launch.
// Registered as kvops::gather_and_maybe_dequant_cache for CUDA tensors.
// Instantiations: 2 fp8 kinds x 3 dtypes, packed or not = 12 kernels.
#include "gather/cuda/kernels/copy_rows.h"
#include "gather/cuda/kernels/dequantize_rows.cuh"
#include "gather/cuda/tables.h"
#include "gather/ops.h"

namespace kvops::cuda {
namespace {

template <class Fp8>
cudaError_t dequantize(const kernels::GatherCall& call, const GatherAndMaybeDequantCacheParams& p) {
  const auto launch = [&](auto element) {
    return kernels::launch_dequantize_rows<Fp8, decltype(element)>(call, p.rows, p.row_elems,
                                                                   p.scale);
  };
  switch (p.dst_dtype) {
    case DType::kHalf:
      return launch(half_t{});
    case DType::kBFloat16:
      return launch(bfloat16_t{});
    default:
      return launch(float{});
  }
}

}  // namespace

void gather_and_maybe_dequant_cache(const Tensor& src_cache, Tensor& dst, const Tensor& block_table,
                                    const Tensor& cu_seq_lens, const Tensor& token_to_seq,
                                    int64_t num_tokens, const std::string& kv_cache_dtype,
                                    const Tensor& scale, const OptionalTensor& seq_starts) {
  const GatherAndMaybeDequantCacheParams p = validate_gather_and_maybe_dequant_cache(
      src_cache, dst, block_table, cu_seq_lens, token_to_seq, num_tokens, kv_cache_dtype, scale,
      seq_starts);
  const CudaContext context("gather_and_maybe_dequant_cache", src_cache);
  const kernels::GatherCall call =
      gather_call(context, "cu_seq_lens", p.requests, p.dst_rows, p.token_to_seq);
  if (p.kind == CacheKind::kAuto) {
    context.check(kernels::launch_copy_rows(call, p.rows));
  } else if (p.kind == CacheKind::kFp8E4m3) {
    context.check(dequantize<e4m3_t>(call, p));
  } else {
    context.check(dequantize<e5m2_t>(call, p));
  }
}

}  // namespace kvops::cuda
