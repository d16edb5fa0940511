// The pages of one partition: what the attention loops know about where keys and values are.
// Built from the block table by collect_pages; other layouts of a cache would change this file.
// Blocks outside of the cache get no page, and neither do those that block sparsity hides.
#pragma once

#include "attention/block_sparse.h"
#include "attention/params.h"
#include "common/isa.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

constexpr int64_t kMinBlockTokens = 8;
constexpr int64_t kMaxBlockTokens = 256;
constexpr int64_t kMaxHeadSize = 256;
// A partition that starts and ends inside of a block reaches one block further.
constexpr int64_t kMaxPages = kPartitionTokens / kMinBlockTokens;
constexpr int64_t kMaxSlots = kPartitionTokens + 2 * kMaxBlockTokens;

struct Page {
  int64_t key_offset;    // of KV head 0, in elements
  int64_t value_offset;  // likewise
  int64_t first_token;   // position in the sequence of the page's first token
  int32_t begin;         // tokens [begin, end) of the page belong to partition and sequence
  int32_t end;
};

// Slot i * block_size + t is token t of page i.
struct Pages {
  Page page[kMaxPages];
  int64_t count;
  int64_t hidden_tokens;  // by block sparsity
};

// Pages of tokens [first_token, end_token) of a sequence. `head` only matters with block sparsity.
inline void collect_pages(const PagedAttentionParams& p, int64_t seq, int64_t seq_len,
                          int64_t first_token, int64_t end_token, int64_t head, Pages& pages) {
  const int32_t* table = p.block_tables + seq * p.table_seq_stride;
  const int64_t shift = p.sparse.active ? sparse_shift(p, head) : 0;
  pages.count = 0;
  pages.hidden_tokens = 0;
  for (int64_t i = first_token / p.block_size; i * p.block_size < end_token; ++i) {
    const int64_t block = table[i];
    if (block < 0 || block >= p.num_blocks) continue;
    const int64_t start = i * p.block_size;
    const int64_t begin = first_token > start ? first_token - start : 0;
    const int64_t end = end_token - start < p.block_size ? end_token - start : p.block_size;
    if (p.sparse.active && !sparse_sees(p.sparse, shift, start, seq_len)) {
      pages.hidden_tokens += end - begin;
      continue;
    }
    pages.page[pages.count++] = {
        .key_offset = block * p.key_block_stride,
        .value_offset = block * p.value_block_stride,
        .first_token = start,
        .begin = static_cast<int32_t>(begin),
        .end = static_cast<int32_t>(end),
    };
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
