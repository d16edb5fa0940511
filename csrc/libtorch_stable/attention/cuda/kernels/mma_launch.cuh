// The tensor-core kernels of one element type of a cache, by the largest head size (64, 128, 256)
// and the query heads at once (8, 16). Included by instantiations/mma_*.cu only.
#pragma once

#include "attention/cuda/kernels/launch.h"
#include "attention/cuda/kernels/mma_engine.cuh"
#include "attention/cuda/kernels/paged_attention.cuh"

namespace kvops::kernels {

template <class Operand, class Cache, int kMaxDims>
cudaError_t launch_mma_heads(const PagedAttentionParams& p, const AttentionPlan& plan,
                             cudaStream_t stream) {
  if (plan.engine == AttentionEngine::kMma8) {
    return launch_engine<MmaEngine<Operand, Cache, kMaxDims, 1>>(p, plan, stream);
  }
  return launch_engine<MmaEngine<Operand, Cache, kMaxDims, 2>>(p, plan, stream);
}

template <class Operand, class Cache>
cudaError_t launch_mma(const PagedAttentionParams& p, const AttentionPlan& plan,
                       cudaStream_t stream) {
  if (p.head_size <= 64) return launch_mma_heads<Operand, Cache, 64>(p, plan, stream);
  if (p.head_size <= 128) return launch_mma_heads<Operand, Cache, 128>(p, plan, stream);
  return launch_mma_heads<Operand, Cache, 256>(p, plan, stream);
}

}  // namespace kvops::kernels
