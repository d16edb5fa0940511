// Values of seq_lens and block_tables, looked at in checked mode. See validate.h. Called by the CPU
// operator with its own tensors, by the CUDA operator with copies of them.
#include <algorithm>
#include <string>

#include "attention/block_sparse.h"
#include "attention/validate.h"
#include "common/checked_mode.h"

namespace kvops {
namespace {

// Whether any head sees the block that starts at `first_token`.
bool is_seen(const PagedAttentionParams& p, int64_t first_token, int64_t seq_len) {
  if (!p.sparse.active) return true;
  for (int64_t head = 0; head < p.num_heads; ++head) {
    if (sparse_sees(p.sparse, sparse_shift(p, head), first_token, seq_len)) return true;
  }
  return false;
}

// Entries that no head reads may have any value.
void check_table(const char* op, const PagedAttentionParams& p, int64_t seq) {
  const int64_t seq_len = std::clamp<int64_t>(p.seq_lens[seq], 0, p.max_tokens);
  for (int64_t i = 0; i * p.block_size < seq_len; ++i) {
    const int64_t block = p.block_tables[seq * p.table_seq_stride + i];
    if ((block >= 0 && block < p.num_blocks) || !is_seen(p, i * p.block_size, seq_len)) continue;
    const std::string entry =
        "block_tables[" + std::to_string(seq) + ", " + std::to_string(i) + "]";
    fail({op, entry.c_str()},
         "must be in [0, " + std::to_string(p.num_blocks) + "), got " + std::to_string(block));
  }
}

}  // namespace

void check_paged_attention_indices(const char* op, const PagedAttentionParams& p) {
  check_index_values({op, "seq_lens"}, p.seq_lens, p.num_seqs, 0, p.max_tokens + 1);
  for (int64_t seq = 0; seq < p.num_seqs; ++seq) check_table(op, p, seq);
}

}  // namespace kvops
