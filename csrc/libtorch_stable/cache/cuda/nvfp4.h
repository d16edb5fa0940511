// Writes tokens into nvfp4 pages on CUDA.
// Called by cuda::reshape_and_cache_flash with validated parameters.
#pragma once

#include "cache/params.h"
#include "common/cuda/context.h"

namespace kvops::cuda {

void write_nvfp4_pages(const CudaContext& context, const Nvfp4WriterParams& params);

}  // namespace kvops::cuda
