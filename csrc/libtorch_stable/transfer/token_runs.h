// Runs of tokens whose neighbours move together, and the copies that they are in each row.
// Used where the host carries out or plans a transfer: the CPU operators and the direct forms.
// Indices that are out of range are in no run; the first of them is remembered.
#pragma once

#include <cstdint>
#include <vector>

#include "transfer/params.h"

namespace kvops {

// Tokens src_token, src_token + 1, ... go to dst_token, dst_token + 1, ...; no page ends in
// between.
struct TokenRun {
  int64_t src_token;
  int64_t dst_token;
  int64_t count;
};

struct BadIndex {
  const char* argument;  // null: there is none
  int64_t index;
  int64_t value;
  int64_t count;  // of all items that were left out
};

struct TokenRuns {
  std::vector<TokenRun> runs;
  BadIndex first_bad;
};

TokenRuns find_runs(const int64_t* src_indices, const int64_t* dst_indices, int64_t num_items,
                    const TokenGrid& src, const TokenGrid& dst);

// Whether the tokens of a run lie one after the other.
inline bool is_dense(const TokenStrides& strides, int64_t page_tokens, int64_t bytes) {
  return (page_tokens == 1 ? strides.page_bytes : strides.token_bytes) == bytes;
}

// Calls use(from, to, bytes) for all bytes of a run in one row.
template <class Use>
void for_each_copy(const TransferRow& row, const TokenGrid& src, const TokenGrid& dst,
                   const TokenRun& run, const Use& use) {
  const bool dense = is_dense(row.src_strides, src.page_tokens, row.bytes) &&
                     is_dense(row.dst_strides, dst.page_tokens, row.bytes);
  const int64_t tokens = dense ? run.count : 1;
  for (int64_t i = 0; i < run.count; i += tokens) {
    use(row.src + offset_of(src.page_tokens, row.src_strides, run.src_token + i),
        row.dst + offset_of(dst.page_tokens, row.dst_strides, run.dst_token + i),
        tokens * row.bytes);
  }
}

// The same for the rows of a kernel form, for hosts that can read its memory. `src_tables` and
// `dst_tables`: the addresses of side.memory[part].layers, where that is not null.
struct LayerTables {
  const uint64_t* src[kMaxParts];
  const uint64_t* dst[kMaxParts];
};

std::vector<TransferRow> rows_of(const TransferParams& params, const LayerTables& tables);

}  // namespace kvops
