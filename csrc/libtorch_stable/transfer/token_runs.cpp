// Finds runs of tokens, lists the rows of a kernel form. See token_runs.h.
#include "transfer/token_runs.h"

#include <cstddef>

namespace kvops {
namespace {

bool is_token(int64_t index, const TokenGrid& grid) {
  return index >= 0 && index < grid.num_tokens;
}

bool begins_page(int64_t token, const TokenGrid& grid) {
  return grid.page_tokens > 1 && token % grid.page_tokens == 0;
}

void note(BadIndex& bad, const char* argument, int64_t index, int64_t value) {
  if (bad.argument == nullptr) bad = {argument, index, value, 0};
  ++bad.count;
}

char* layer_base(const TransferSide& side, int part, const uint64_t* table, int64_t layer) {
  if (table != nullptr) return reinterpret_cast<char*>(table[layer]);
  return side.memory[part].base + layer * side.layer_stride_bytes;
}

}  // namespace

TokenRuns find_runs(const int64_t* src_indices, const int64_t* dst_indices, int64_t num_items,
                    const TokenGrid& src, const TokenGrid& dst) {
  TokenRuns found{{}, {nullptr, 0, 0, 0}};
  for (int64_t i = 0; i < num_items; ++i) {
    const int64_t from = src_indices[i];
    const int64_t to = dst_indices[i];
    if (!is_token(from, src)) {
      note(found.first_bad, "src_indices", i, from);
    } else if (!is_token(to, dst)) {
      note(found.first_bad, "dst_indices", i, to);
    } else if (!found.runs.empty() &&
               found.runs.back().src_token + found.runs.back().count == from &&
               found.runs.back().dst_token + found.runs.back().count == to &&
               !begins_page(from, src) && !begins_page(to, dst)) {
      ++found.runs.back().count;
    } else {
      found.runs.push_back({from, to, 1});
    }
  }
  return found;
}

std::vector<TransferRow> rows_of(const TransferParams& p, const LayerTables& tables) {
  std::vector<TransferRow> rows;
  rows.reserve(static_cast<size_t>(p.num_parts * p.num_layers * p.num_heads));
  for (int part = 0; part < p.num_parts; ++part) {
    for (int64_t layer = 0; layer < p.num_layers; ++layer) {
      const char* from = layer_base(p.src, part, tables.src[part], layer);
      char* to = layer_base(p.dst, part, tables.dst[part], layer);
      for (int64_t head = 0; head < p.num_heads; ++head) {
        rows.push_back({.src = from + head * p.src.head_stride_bytes,
                        .dst = to + head * p.dst.head_stride_bytes,
                        .bytes = p.chunk_bytes,
                        .src_strides = p.src.strides,
                        .dst_strides = p.dst.strides});
      }
    }
  }
  return rows;
}

}  // namespace kvops
