// Launches the nvfp4 writer. See nvfp4.h.
// A source of its own: it shares no kernel with the other kinds of reshape_and_cache_flash.
#include "cache/cuda/nvfp4.h"

#include "cache/cuda/kernels/nvfp4.cuh"

namespace kvops::cuda {

void write_nvfp4_pages(const CudaContext& context, const Nvfp4WriterParams& p) {
  context.check(kernels::launch_nvfp4_writer(p, context.skips("slot_mapping"), context.stream()));
}

}  // namespace kvops::cuda
