// What the CUDA gathers share on the host: checked mode, and what every launch needs.
// Used by the thin CUDA operators of this folder.
#pragma once

#include <cuda_runtime_api.h>

#include "common/checked_mode.h"
#include "common/cuda/context.h"
#include "common/cuda/host_indices.h"
#include "gather/cuda/kernels/requests.cuh"
#include "gather/validate.h"

namespace kvops::cuda {

// From the first element of block_table to its last.
inline int64_t table_elems(const PagedRequests& requests) {
  const int64_t rows = requests.num_requests;
  return rows == 0 ? 0 : (rows - 1) * requests.block_table_stride_elems + requests.max_blocks;
}

// In checked mode, raises for whatever the kernel would skip.
inline void check_tables(const CudaContext& context, const char* starts_name,
                         const PagedRequests& requests, int64_t dst_rows,
                         const int32_t* token_to_seq = nullptr) {
  if (!checked_mode()) return;
  const int64_t rows = requests.num_requests;
  const HostIndices table(context, "block_table", requests.block_table, table_elems(requests));
  const HostIndices starts(context, starts_name, requests.row_starts, requests.num_row_starts);
  const HostIndices seq_starts(context, "seq_starts", requests.seq_starts, rows);
  const HostIndices tokens(context, "token_to_seq", token_to_seq,
                           token_to_seq != nullptr ? requests.num_rows : 0);
  PagedRequests on_host = requests;
  on_host.block_table = table.data();
  on_host.row_starts = starts.data();
  if (requests.seq_starts != nullptr) on_host.seq_starts = seq_starts.data();
  check_indices(context.op(), starts_name, on_host, dst_rows);
  if (token_to_seq != nullptr) check_token_to_seq(context.op(), tokens.data(), on_host);
}

inline int multiprocessors_of(const CudaContext& context) {
  // Asked for once: a question to the runtime takes time in every call.
  thread_local int known_device = -1;
  thread_local int known = 0;
  if (context.device() == known_device) return known;
  int count = 0;
  context.check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, context.device()),
                "device query");
  known_device = context.device();
  return known = count;
}

// What every launch of this folder needs; in checked mode, after the tables were checked.
// `starts_name` is what the operator calls row_starts; token_to_seq may be null.
inline kernels::GatherCall gather_call(const CudaContext& context, const char* starts_name,
                                       const PagedRequests& requests, int64_t dst_rows,
                                       const int32_t* token_to_seq = nullptr) {
  check_tables(context, starts_name, requests, dst_rows, token_to_seq);
  int64_t positions = 0;
  if (__builtin_mul_overflow(requests.max_blocks, requests.block_size, &positions)) {
    positions = INT64_MAX;
  }
  const auto narrow = [](int64_t count) {
    return static_cast<int32_t>(count < INT32_MAX ? count : INT32_MAX);
  };
  return {
      .tables =
          {
              .row_starts = requests.row_starts,
              .seq_starts = requests.seq_starts,
              .token_to_seq = token_to_seq,
              .block_table = requests.block_table,
              .block_table_stride_elems = requests.block_table_stride_elems,
              .table_elems = table_elems(requests),
              .positions = positions,
              .block_size = kernels::Divisor(requests.block_size, positions),
              .num_rows = narrow(requests.num_rows),
              .dst_rows = narrow(dst_rows),
              .num_row_starts = narrow(requests.num_row_starts),
              .num_requests = narrow(requests.num_requests),
              .num_blocks = narrow(requests.num_blocks),
          },
      .reports =
          {
              .max_blocks = requests.max_blocks,
              .row_starts = context.skips(starts_name),
              .seq_starts = context.skips("seq_starts"),
              .block_table = context.skips("block_table"),
              .token_to_seq = context.skips("token_to_seq"),
          },
      .block_size = requests.block_size,
      .multiprocessors = multiprocessors_of(context),
      .stream = context.stream(),
  };
}

}  // namespace kvops::cuda
