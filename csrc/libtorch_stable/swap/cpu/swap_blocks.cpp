// swap_blocks on CPU: between two host tensors, or within one.
// Registered as kvops::swap_blocks for CPU tensors; a CUDA tensor among src and dst outranks it.
// Rows of block_mapping take effect in order: a later row sees what an earlier one has copied.
#include <vector>

#include "swap/cpu/host_copies.h"
#include "swap/ops.h"
#include "swap/paths.h"
#include "swap/validate.h"

namespace kvops::cpu {

void swap_blocks(const Tensor& src, Tensor& dst, int64_t block_size_in_bytes,
                 const Tensor& block_mapping) {
  const SwapBlocksParams p = validate_swap_blocks(src, dst, block_size_in_bytes, block_mapping);
  std::vector<HostCopy> copies;
  copies.reserve(static_cast<size_t>(p.num_copies));
  for (int64_t i = 0; i < p.num_copies; ++i) {
    const int64_t* pair = p.mapping + i * p.mapping_row_stride_elems;
    const char* from = p.src + pair[0] * p.block_bytes;
    char* to = p.dst + pair[p.mapping_column_stride_elems] * p.block_bytes;
    if (from != to) copies.push_back({from, to, p.block_bytes});
  }
  run_host_copies(copies);
  note_swap_paths(kSwapHost);
}

}  // namespace kvops::cpu
