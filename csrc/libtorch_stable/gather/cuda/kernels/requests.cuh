// Which entry of the paged cache a row of dst comes from: device side of PagedRequests.
// Used by the gather kernel (gather.cuh), by one thread per row.
// Table values are hostile until compared: int64 throughout, and what is wrong is reported.
#pragma once

#include <cstdint>

#include "common/cuda/skipped.cuh"
#include "gather/params.h"

namespace kvops::kernels {

struct GatherTables {
  PagedRequests requests;
  const int32_t* token_to_seq;  // [num_rows], the request of each row; null: found by row_starts
  int64_t dst_rows;             // row starts may be that much
  SkipReport row_starts;
  SkipReport seq_starts;
  SkipReport block_table;
  SkipReport token_to_seq_report;
};

struct Entry {
  int64_t block;  // -1: none, the row keeps its bytes
  int64_t offset;
};

// Up to so many row starts are kept in shared memory.
inline constexpr int kSharedStarts = 1024;

struct RowStarts {
  const int32_t* values;  // in shared or in global memory
  bool ascending;
};

__device__ inline bool is_bad_start(const GatherTables& t, const int32_t* starts, int64_t i) {
  return starts[i] < 0 || starts[i] > t.dst_rows || (i > 0 && starts[i] < starts[i - 1]);
}

// Reports the first bad row start and the first bad sequence start. Called by one whole block.
__device__ inline void report_bad_starts(const GatherTables& t, const int32_t* starts) {
  __shared__ unsigned long long first_bad[2];
  if (threadIdx.x < 2) first_bad[threadIdx.x] = ~0ull;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < t.requests.num_row_starts; i += blockDim.x) {
    if (is_bad_start(t, starts, i)) atomicMin(&first_bad[0], static_cast<unsigned long long>(i));
  }
  if (t.requests.seq_starts != nullptr) {
    for (int64_t i = threadIdx.x; i < t.requests.num_requests; i += blockDim.x) {
      if (t.requests.seq_starts[i] < 0) {
        atomicMin(&first_bad[1], static_cast<unsigned long long>(i));
      }
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    const int64_t row_start = static_cast<int64_t>(first_bad[0]);
    const int64_t seq_start = static_cast<int64_t>(first_bad[1]);
    if (row_start >= 0) report_skipped(t.row_starts, row_start, starts[row_start]);
    if (seq_start >= 0) {
      report_skipped(t.seq_starts, seq_start, t.requests.seq_starts[seq_start]);
    }
  }
}

// Called by a whole block. Ascending starts, the normal case, can be searched by halving.
__device__ inline RowStarts load_row_starts(const GatherTables& t, int32_t* shared) {
  const int64_t count = t.requests.num_row_starts;
  const int32_t* values = t.requests.row_starts;
  if (count <= kSharedStarts) {
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) shared[i] = values[i];
    __syncthreads();
    values = shared;
  }
  bool descends = false;
  for (int64_t i = threadIdx.x + 1; i < count; i += blockDim.x) {
    descends |= values[i] < values[i - 1];
  }
  return {values, __syncthreads_or(descends) == 0};
}

__device__ inline bool owns_row(const PagedRequests& r, const int32_t* starts, int64_t request,
                                int64_t row) {
  const int64_t next = request + 1;
  const int64_t end = next < r.num_row_starts ? starts[next] : r.num_rows;
  return starts[request] <= row && row < end;
}

// The entry of a row that belongs to `request`.
__device__ inline Entry entry_of(const GatherTables& t, const int32_t* starts, int64_t request,
                                 int64_t row) {
  const PagedRequests& r = t.requests;
  const int64_t seq_start = r.seq_starts != nullptr ? r.seq_starts[request] : 0;
  const int64_t position = row - starts[request] + seq_start;
  if (position < 0 || r.block_size <= 0) return {-1, 0};
  const bool narrow = (position | r.block_size) < (int64_t{1} << 31);
  const int64_t page = narrow
                           ? static_cast<uint32_t>(position) / static_cast<uint32_t>(r.block_size)
                           : position / r.block_size;
  if (page >= r.max_blocks) {
    if (r.seq_starts != nullptr) {
      report_skipped(t.seq_starts, request, seq_start);
    } else {
      const int64_t at = request + 1 < r.num_row_starts ? request + 1 : request;
      report_skipped(t.row_starts, at, starts[at]);
    }
    return {-1, 0};
  }
  const int64_t block = r.block_table[request * r.block_table_stride_elems + page];
  if (block < 0 || block >= r.num_blocks) {
    report_skipped(t.block_table, request * r.max_blocks + page, block);
    return {-1, 0};
  }
  return {block, position - page * r.block_size};
}

// The last of the ascending starts that is not above `row`; -1 if all are.
__device__ inline int64_t last_start_up_to(const int32_t* starts, int64_t count, int64_t row) {
  int64_t low = 0;
  int64_t high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (starts[middle] <= row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low - 1;
}

__device__ inline Entry entry_by_starts(const GatherTables& t, const RowStarts& starts,
                                        int64_t row) {
  const PagedRequests& r = t.requests;
  if (starts.ascending) {
    const int64_t request = last_start_up_to(starts.values, r.num_row_starts, row);
    if (request < 0 || request >= r.num_requests) return {-1, 0};
    return entry_of(t, starts.values, request, row);
  }
  // Hostile: several requests may claim a row. The last one that has an entry for it wins, as if
  // they were gathered one after the other.
  for (int64_t request = r.num_requests - 1; request >= 0; --request) {
    if (!owns_row(r, starts.values, request, row)) continue;
    const Entry entry = entry_of(t, starts.values, request, row);
    if (entry.block >= 0) return entry;
  }
  return {-1, 0};
}

__device__ inline Entry entry_by_token(const GatherTables& t, const int32_t* starts, int64_t row) {
  const PagedRequests& r = t.requests;
  const int64_t request = t.token_to_seq[row];
  if (request < 0 || request >= r.num_requests) {
    report_skipped(t.token_to_seq_report, row, request);
    return {-1, 0};
  }
  if (!owns_row(r, starts, request, row)) {
    // Rows of no request at all are padding.
    if (row >= starts[0] && row < starts[r.num_requests]) {
      report_skipped(t.token_to_seq_report, row, request);
    }
    return {-1, 0};
  }
  return entry_of(t, starts, request, row);
}

}  // namespace kvops::kernels
