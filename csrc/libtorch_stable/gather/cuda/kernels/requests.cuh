// Which entry of the paged cache a row of dst comes from: device side of PagedRequests.
// Used by the gather kernel (gather.cuh), by one thread per row.
// Table values are hostile until compared. What is wrong is reported after the rows have moved, by
// looking again: finding is short, and its instructions and constants are few.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/cuda/divisor.cuh"
#include "common/cuda/skipped.cuh"
#include "gather/params.h"

namespace kvops::kernels {

// Requests, rows and blocks are numbered by int32 values, so what is beyond them does not exist.
struct GatherTables {
  const int32_t* row_starts;    // [num_row_starts]
  const int32_t* seq_starts;    // [num_requests]; null: all 0
  const int32_t* token_to_seq;  // [num_rows], the request of each row; null: found by row_starts
  const int32_t* block_table;   // [num_requests, max_blocks]
  int64_t block_table_stride_elems;
  int64_t table_elems;  // of block_table, with what lies between its lines
  int64_t positions;    // that a line of block_table has blocks for
  Divisor block_size;   // of such a position
  int32_t num_rows;
  int32_t dst_rows;  // row starts may be that much
  int32_t num_row_starts;
  int32_t num_requests;
  int32_t num_blocks;
};

struct GatherReports {
  int64_t max_blocks;
  SkipReport row_starts;
  SkipReport seq_starts;
  SkipReport block_table;
  SkipReport token_to_seq;
};

// What every launch of a gather needs.
struct GatherCall {
  GatherTables tables;
  GatherReports reports;
  int64_t block_size;  // in tokens
  int multiprocessors;
  cudaStream_t stream;
};

struct Entry {
  int64_t block;  // -1: none, the row keeps its bytes
  int64_t offset;
};

// Up to so many row starts, and the sequence starts with them, are kept in shared memory.
inline constexpr int kSharedStarts = 1024;

inline int shared_starts_bytes(const GatherTables& t) {
  if (t.num_row_starts > kSharedStarts) return 0;
  const int arrays = t.seq_starts != nullptr ? 2 : 1;
  return arrays * t.num_row_starts * static_cast<int>(sizeof(int32_t));
}

// In shared or in global memory.
struct RowStarts {
  const int32_t* rows;
  const int32_t* sequences;  // null: all 0
  bool are_sound;            // in range, and the rows' ascend: they can be searched by halving
};

// Called by a whole block, which waits in here; `shared` has room for shared_starts_bytes.
__device__ __forceinline__ RowStarts load_starts(const GatherTables& t, int32_t* shared, int thread,
                                                 int threads) {
  const bool is_shared = t.num_row_starts <= kSharedStarts;
  const bool shares_sequences = is_shared && t.seq_starts != nullptr;
  int32_t* const sequences = shared + t.num_row_starts;
  bool is_bad = false;
#pragma unroll 1
  for (int64_t i = thread; i < t.num_row_starts; i += threads) {
    const int32_t start = t.row_starts[i];
    const int32_t before = i > 0 ? t.row_starts[i - 1] : 0;
    if (t.seq_starts != nullptr && i < t.num_requests) {
      const int32_t sequence = t.seq_starts[i];
      if (is_shared) sequences[i] = sequence;
      is_bad |= sequence < 0;
    }
    if (is_shared) shared[i] = start;
    is_bad |= start < before || start > t.dst_rows;
  }
  const bool are_sound = __syncthreads_or(is_bad) == 0;
  return {is_shared ? shared : t.row_starts, shares_sequences ? sequences : t.seq_starts,
          are_sound};
}

// Asks for a line of the block table before it is known to be needed: the first blocks of a launch
// would else all wait for the memory once more.
__device__ __forceinline__ void prefetch_line(const GatherTables& t, int thread) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const uint32_t elem = blockIdx.x * 32u;  // for 2^27 blocks and more, of some other line
  if (thread == 0 && elem < t.table_elems) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(t.block_table + elem)));
  }
#endif
}

__device__ __forceinline__ bool owns_row(const GatherTables& t, const RowStarts& starts,
                                         int32_t request, int32_t row) {
  const int32_t next = request + 1;
  const int32_t end = next < t.num_row_starts ? starts.rows[next] : t.num_rows;
  return starts.rows[request] <= row && row < end;
}

__device__ __forceinline__ int64_t position_of(const RowStarts& starts, int32_t request,
                                               int32_t row) {
  const int64_t seq_start = starts.sequences != nullptr ? starts.sequences[request] : 0;
  return seq_start + row - starts.rows[request];
}

// The last of `count` ascending starts that is not above `row`; -1 if all are.
__device__ __forceinline__ int32_t last_start_up_to(const int32_t* starts, int32_t count,
                                                    int32_t row) {
  int32_t low = 0;
#pragma unroll 1
  while (count > 0) {
    const int32_t half = count / 2;
    const bool is_later = starts[low + half] <= row;
    low += is_later ? half + 1 : 0;
    count = is_later ? count - half - 1 : half;
  }
  return low - 1;
}

// `request`: what token_to_seq says of the row, if there is one.
__device__ __forceinline__ Entry find_entry(const GatherTables& t, const RowStarts& starts,
                                            int32_t request, int32_t row) {
  int32_t lowest = request;
  if (t.token_to_seq == nullptr) {
    // Hostile starts: several requests may claim a row. The last one that has an entry for it wins,
    // as if they were gathered one after the other.
    lowest = starts.are_sound ? last_start_up_to(starts.rows, t.num_row_starts, row) : 0;
    request = starts.are_sound ? lowest : t.num_requests - 1;
  }
  if (request >= t.num_requests) return {-1, 0};
#pragma unroll 1
  for (; request >= 0 && request >= lowest; --request) {
    if (!owns_row(t, starts, request, row)) continue;
    const int64_t position = position_of(starts, request, row);
    if (position < 0 || position >= t.positions) continue;
    const int64_t page = t.block_size.quotient(position);
    const int32_t block = t.block_table[request * t.block_table_stride_elems + page];
    if (block < 0 || block >= t.num_blocks) continue;
    return {block, t.block_size.remainder(position, page)};
  }
  return {-1, 0};
}

// Reports what keeps a row that belongs to `request` from having an entry.
__device__ inline void report_request(const GatherTables& t, const GatherReports& reports,
                                      const RowStarts& starts, int32_t request, int32_t row) {
  const int64_t position = position_of(starts, request, row);
  if (position < 0) return;
  if (position < t.positions) {
    const int64_t page = t.block_size.quotient(position);
    const int32_t block = t.block_table[request * t.block_table_stride_elems + page];
    if (block >= 0 && block < t.num_blocks) return;
    report_skipped(reports.block_table, request * reports.max_blocks + page, block);
  } else if (starts.sequences != nullptr) {
    report_skipped(reports.seq_starts, request, starts.sequences[request]);
  } else {
    const int32_t end = request + 1 < t.num_row_starts ? request + 1 : request;
    report_skipped(reports.row_starts, end, starts.rows[end]);
  }
}

// Reports whatever is wrong in the tables for a row without an entry.
__device__ inline void report_row(const GatherTables& t, const GatherReports& reports,
                                  const RowStarts& starts, int32_t row) {
  if (t.token_to_seq == nullptr) {
    const int32_t last = starts.are_sound ? last_start_up_to(starts.rows, t.num_row_starts, row)
                                          : t.num_requests - 1;
    const int32_t first = starts.are_sound && last >= 0 ? last : 0;
#pragma unroll 1
    for (int32_t request = first; request <= last && request < t.num_requests; ++request) {
      if (owns_row(t, starts, request, row)) report_request(t, reports, starts, request, row);
    }
    return;
  }
  const int32_t request = t.token_to_seq[row];
  const bool exists = request >= 0 && request < t.num_requests;
  if (exists && owns_row(t, starts, request, row)) {
    report_request(t, reports, starts, request, row);
  } else if (!exists || (row >= starts.rows[0] && row < starts.rows[t.num_requests])) {
    // Rows of no request at all are padding.
    report_skipped(reports.token_to_seq, row, request);
  }
}

// Reports the first bad row start and the first bad sequence start. Called by one whole block.
__device__ inline void report_bad_starts(const GatherTables& t, const GatherReports& reports,
                                         const RowStarts& starts, int thread, int threads) {
  __shared__ int first_bad[2];
  if (thread == 0) first_bad[0] = first_bad[1] = INT32_MAX;
  __syncthreads();
#pragma unroll 1
  for (int64_t i = thread; i < t.num_row_starts; i += threads) {
    const int32_t start = starts.rows[i];
    if (start < 0 || start > t.dst_rows || (i > 0 && start < starts.rows[i - 1])) {
      atomicMin(&first_bad[0], static_cast<int>(i));
    }
    if (starts.sequences != nullptr && i < t.num_requests && starts.sequences[i] < 0) {
      atomicMin(&first_bad[1], static_cast<int>(i));
    }
  }
  __syncthreads();
  if (thread != 0) return;
  const int row_start = first_bad[0];
  const int seq_start = first_bad[1];
  if (row_start != INT32_MAX) report_skipped(reports.row_starts, row_start, starts.rows[row_start]);
  if (seq_start != INT32_MAX) {
    report_skipped(reports.seq_starts, seq_start, starts.sequences[seq_start]);
  }
}

}  // namespace kvops::kernels
