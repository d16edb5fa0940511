// The kernels of one element type of a cache: 1, up to 4 and up to 8 query heads at once. Included
// by instantiations/fma_*.cu only.
#pragma once

#include "attention/cuda/kernels/fma_engine.cuh"
#include "attention/cuda/kernels/launch.h"
#include "attention/cuda/kernels/paged_attention.cuh"

namespace kvops::kernels {

template <class Cache>
cudaError_t launch_fma(const PagedAttentionParams& p, const AttentionPlan& plan,
                       cudaStream_t stream) {
  switch (plan.engine) {
    case AttentionEngine::kFma1:
      return launch_engine<FmaEngine<Cache, 1>>(p, plan, stream);
    case AttentionEngine::kFma4:
      return launch_engine<FmaEngine<Cache, 4>>(p, plan, stream);
    default:
      return launch_engine<FmaEngine<Cache, 8>>(p, plan, stream);
  }
}

}  // namespace kvops::kernels
