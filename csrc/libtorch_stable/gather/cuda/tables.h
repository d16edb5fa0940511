// What the CUDA gathers share on the host: tables for the kernel, checked mode, the device's size.
// Used by the thin CUDA operators of this folder.
#pragma once

#include <cuda_runtime_api.h>

#include "common/checked_mode.h"
#include "common/cuda/context.h"
#include "common/cuda/host_indices.h"
#include "gather/cuda/kernels/requests.cuh"
#include "gather/validate.h"

namespace kvops::cuda {

// `starts_name` is what the operator calls row_starts; token_to_seq may be null.
inline kernels::GatherTables gather_tables(const CudaContext& context, const char* starts_name,
                                           const PagedRequests& requests, int64_t dst_rows,
                                           const int32_t* token_to_seq = nullptr) {
  return {
      .requests = requests,
      .token_to_seq = token_to_seq,
      .dst_rows = dst_rows,
      .row_starts = context.skips(starts_name),
      .seq_starts = context.skips("seq_starts"),
      .block_table = context.skips("block_table"),
      .token_to_seq_report = context.skips("token_to_seq"),
  };
}

// In checked mode, raises for whatever the kernel would skip.
inline void check_tables(const CudaContext& context, const char* starts_name,
                         const PagedRequests& requests, int64_t dst_rows,
                         const int32_t* token_to_seq = nullptr) {
  if (!checked_mode()) return;
  const int64_t rows = requests.num_requests;
  const int64_t table_elems =
      rows == 0 ? 0 : (rows - 1) * requests.block_table_stride_elems + requests.max_blocks;
  const HostIndices table(context, "block_table", requests.block_table, table_elems);
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

inline int multiprocessors(const CudaContext& context) {
  int count = 0;
  context.check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, context.device()),
                "device query");
  return count;
}

}  // namespace kvops::cuda
