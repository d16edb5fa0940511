// concat_mla_q on CUDA: validate, launch.
// Registered as kvops::concat_mla_q for CUDA tensors.
#include "common/cuda/context.h"
#include "mla/cuda/kernels/concat_mla_q.cuh"
#include "mla/ops.h"
#include "mla/validate.h"

namespace kvops::cuda {

void concat_mla_q(const Tensor& ql_nope, const Tensor& q_pe, Tensor& q_out) {
  const ConcatMlaQParams params = validate_concat_mla_q(ql_nope, q_pe, q_out);
  const CudaContext context("concat_mla_q", ql_nope);
  context.check(kernels::launch_concat_mla_q(params, context.stream()));
}

}  // namespace kvops::cuda
