// The typed operators of this capability, for registration: one signature, CPU and CUDA.
// Semantics and errors: docstrings in kvops/swap.py.
// swap_blocks_batch gets only host tables, so its CPU key is all that ever runs: _C_cuda hands _C
// an implementation for addresses of devices when it is attached.
#pragma once

#include <cstdint>

#include "common/tensor.h"
#include "swap/params.h"

namespace kvops {

using SwapBlocks = void(const Tensor& src, Tensor& dst, int64_t block_size_in_bytes,
                        const Tensor& block_mapping);
using SwapBlocksBatch = void(const Tensor& src_ptrs, const Tensor& dst_ptrs, const Tensor& sizes,
                             bool is_src_access_order_any);

// Does validated copies if an address is on a device; else does nothing and returns false.
using SwapOnDevices = bool(const SwapBlocksBatchParams& params, bool is_src_access_order_any);

namespace cpu {
SwapBlocks swap_blocks;
SwapBlocksBatch swap_blocks_batch;
void set_swap_on_devices(SwapOnDevices* implementation);
}  // namespace cpu

namespace cuda {
SwapBlocks swap_blocks;
SwapOnDevices swap_blocks_batch;
}  // namespace cuda

}  // namespace kvops
