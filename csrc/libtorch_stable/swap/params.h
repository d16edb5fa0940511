// Parameters of the swaps, CPU and CUDA alike: plain structs, filled by swap/validate.
// All tables are on the host; validation has looked at every entry of them.
// Addresses are those of the caller: nothing here can tell whether memory is behind them.
#pragma once

#include <cstdint>

namespace kvops {

// Copy row i: block mapping[i, 0] of src to block mapping[i, 1] of dst, in order.
struct SwapBlocksParams {
  const char* src;         // blocks of block_bytes, one after the other
  char* dst;               // likewise
  const int64_t* mapping;  // [num_copies, 2], any strides
  int64_t mapping_row_stride_elems;
  int64_t mapping_column_stride_elems;
  int64_t num_copies;
  int64_t block_bytes;
};

// Copy i: sizes[i] bytes from address src_ptrs[i] to address dst_ptrs[i].
struct SwapBlocksBatchParams {
  const int64_t* src_ptrs;  // [num_copies]
  const int64_t* dst_ptrs;  // [num_copies]
  const int64_t* sizes;     // [num_copies], in bytes
  int64_t num_copies;
  int64_t total_bytes;
};

}  // namespace kvops
