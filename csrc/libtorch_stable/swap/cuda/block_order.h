// Whether the rows of swap_blocks may be copied in any order and at the same time.
// Asked by cuda::swap_blocks; rows must have been validated.
#pragma once

#include "swap/params.h"

namespace kvops::cuda {

// False if a row reads or writes what another row writes, or its own target in part. Rows that copy
// a block onto itself do nothing and are left out.
bool block_order_is_free(const SwapBlocksParams& params);

}  // namespace kvops::cuda
