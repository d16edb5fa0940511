// Which cache blocks a query head sees under block sparsity (spec 9.5).
// Used by the CPU and the CUDA kernels. A cache block belongs as a whole to the pattern block of
// its first token. The parameters are within int32 (validated), so nothing here overflows.
#pragma once

#include <cstdint>

#include "attention/params.h"
#include "common/float_convert.h"

namespace kvops {

// Shift of the vertical stripes for a head, modulo the stride.
KVOPS_HOST_DEVICE static inline int64_t sparse_shift(const PagedAttentionParams& p, int64_t head) {
  const BlockSparse& sparse = p.sparse;
  const bool by_query_head = sparse.head_sliding_step >= 0;
  const int64_t kv_head = head / (p.num_heads / p.num_kv_heads);
  const int64_t global_head = by_query_head ? sparse.tp_rank * p.num_heads + head
                                            : sparse.tp_rank * p.num_kv_heads + kv_head;
  const int64_t step = by_query_head ? sparse.head_sliding_step : -sparse.head_sliding_step;
  const int64_t stride = sparse.vert_stride;
  return ((global_head % stride) * (step % stride) + 1) % stride;
}

// Whether the head with this shift sees the cache block that starts at `first_token`.
KVOPS_HOST_DEVICE static inline bool sparse_sees(const BlockSparse& sparse, int64_t shift,
                                                 int64_t first_token, int64_t seq_len) {
  const int64_t pattern_block = first_token / sparse.block_tokens;
  const int64_t newest = (seq_len - 1) / sparse.block_tokens;
  return pattern_block > newest - sparse.local_blocks ||
         (pattern_block + shift) % sparse.vert_stride == 0;
}

}  // namespace kvops
