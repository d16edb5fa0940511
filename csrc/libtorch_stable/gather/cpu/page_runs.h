// Walks the rows of a gather page by page, skipping whatever the tables do not cover.
// Used by the thin CPU operators of this folder, inside parallel loops: nothing here throws.
// Table values are hostile until compared: int64 throughout, no division by an unchecked size.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/parallel.h"
#include "gather/params.h"

namespace kvops::cpu {

// `rows` rows of dst from `row` on, which are neighbouring entries of one block.
struct PageRun {
  int64_t row;
  int64_t rows;
  int64_t block;
  int64_t offset;
};

struct RowRange {
  int64_t begin;
  int64_t end;
};

inline RowRange rows_of_request(const PagedRequests& requests, int64_t request) {
  const int64_t next = request + 1;
  return {requests.row_starts[request],
          next < requests.num_row_starts ? requests.row_starts[next] : requests.num_rows};
}

inline RowRange intersect(RowRange a, RowRange b) {
  return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

// Visits the runs of `range`, all of whose rows belong to `request`.
template <class Visit>
void visit_page_runs(const PagedRequests& requests, int64_t request, RowRange range,
                     const Visit& visit) {
  if (requests.block_size <= 0) return;
  const int32_t* table = requests.block_table + request * requests.block_table_stride_elems;
  const int64_t seq_start = requests.seq_starts ? requests.seq_starts[request] : 0;
  const int64_t position_of_row_0 = seq_start - requests.row_starts[request];
  int64_t row = range.begin;
  if (row + position_of_row_0 < 0) row = -position_of_row_0;
  while (row < range.end) {
    const int64_t position = row + position_of_row_0;
    const int64_t page = position / requests.block_size;
    if (page >= requests.max_blocks) return;
    const int64_t offset = position - page * requests.block_size;
    const int64_t left_in_page = requests.block_size - offset;
    const int64_t left = range.end - row;
    const int64_t rows = left < left_in_page ? left : left_in_page;
    const int64_t block = table[page];
    if (block >= 0 && block < requests.num_blocks) visit(PageRun{row, rows, block, offset});
    row += rows;
  }
}

// Runs body(begin, end) in parallel over the rows of dst.
template <class Body>
void parallel_over_rows(int64_t num_rows, int64_t row_bytes, const Body& body) {
  if (row_bytes == 0) return;
  constexpr int64_t kBytesPerTask = 64 << 10;
  parallel_for(num_rows, 1 + kBytesPerTask / row_bytes, body);
}

// Visits the runs of every request, in parallel over the rows of dst. Requests come in order for
// each row: if row_starts make two of them share a row, the later one wins, with any thread count.
template <class Visit>
void for_each_page_run(const PagedRequests& requests, int64_t row_bytes, const Visit& visit) {
  parallel_over_rows(requests.num_rows, row_bytes, [&](int64_t begin, int64_t end) noexcept {
    for (int64_t request = 0; request < requests.num_requests; ++request) {
      const RowRange range = intersect(rows_of_request(requests, request), {begin, end});
      visit_page_runs(requests, request, range, visit);
    }
  });
}

// Calls piece(dst, src, rows) for stretches of a run that are dense on both sides.
template <class Piece>
void for_each_dense_piece(const EntryRows& r, const PageRun& run, const Piece& piece) {
  const char* src = r.src + run.block * r.block_stride_bytes + run.offset * r.entry_stride_bytes;
  char* dst = r.dst + run.row * r.row_stride_bytes;
  if (r.entry_stride_bytes == r.entry_bytes && r.row_stride_bytes == r.row_bytes) {
    piece(dst, src, run.rows);
    return;
  }
  for (int64_t i = 0; i < run.rows; ++i) {
    piece(dst + i * r.row_stride_bytes, src + i * r.entry_stride_bytes, int64_t{1});
  }
}

inline void copy_run(const EntryRows& r, const PageRun& run) {
  for_each_dense_piece(r, run, [&r](char* dst, const char* src, int64_t rows) {
    std::memcpy(dst, src, static_cast<size_t>(rows * r.row_bytes));
  });
}

}  // namespace kvops::cpu
