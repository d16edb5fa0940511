// Checks the arguments of the swaps and fills their parameter structs.
// Called first by the CPU and the CUDA operator alike; throws before anything is copied.
// Tables are on the host, so every id, size and address is looked at, in default mode too.
#pragma once

#include "common/tensor.h"
#include "swap/params.h"

namespace kvops {

SwapBlocksParams validate_swap_blocks(const Tensor& src, const Tensor& dst,
                                      int64_t block_size_in_bytes, const Tensor& block_mapping);

SwapBlocksBatchParams validate_swap_blocks_batch(const Tensor& src_ptrs, const Tensor& dst_ptrs,
                                                 const Tensor& sizes);

}  // namespace kvops
