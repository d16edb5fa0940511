// gather_and_maybe_dequant_cache on CPU: copies or dequantises stretches of pages.
// Registered as kvops::gather_and_maybe_dequant_cache for CPU tensors.
// A row is written only if its request says that the row is its own, once at most.
#include "common/checked_mode.h"
#include "common/checks.h"
#include "gather/cpu/kernels.h"
#include "gather/cpu/page_runs.h"
#include "gather/ops.h"
#include "gather/validate.h"

namespace kvops::cpu {
namespace {

using Params = GatherAndMaybeDequantCacheParams;

// Consecutive rows of one request are one range, so that pages are moved as a whole.
template <class Visit>
void visit_token_runs(const Params& p, RowRange rows, const Visit& visit) {
  for (int64_t row = rows.begin; row < rows.end;) {
    const int64_t request = p.token_to_seq[row];
    int64_t end = row + 1;
    while (end < rows.end && p.token_to_seq[end] == request) ++end;
    if (request >= 0 && request < p.requests.num_requests) {
      const RowRange range = intersect(rows_of_request(p.requests, request), {row, end});
      visit_page_runs(p.requests, request, range, visit);
    }
    row = end;
  }
}

template <class Visit>
void for_each_token_run(const Params& p, const Visit& visit) {
  parallel_over_rows(
      p.requests.num_rows, p.rows.row_bytes,
      [&](int64_t begin, int64_t end) noexcept { visit_token_runs(p, {begin, end}, visit); });
}

}  // namespace

void gather_and_maybe_dequant_cache(const Tensor& src_cache, Tensor& dst, const Tensor& block_table,
                                    const Tensor& cu_seq_lens, const Tensor& token_to_seq,
                                    int64_t num_tokens, const std::string& kv_cache_dtype,
                                    const Tensor& scale, const OptionalTensor& seq_starts) {
  const Params p = validate_gather_and_maybe_dequant_cache(src_cache, dst, block_table, cu_seq_lens,
                                                           token_to_seq, num_tokens, kv_cache_dtype,
                                                           scale, seq_starts);
  if (checked_mode()) {
    constexpr const char* kOp = "gather_and_maybe_dequant_cache";
    check_indices(kOp, "cu_seq_lens", p.requests, p.dst_rows);
    check_token_to_seq(kOp, p.token_to_seq, p.requests);
  }
  if (p.kind == CacheKind::kAuto) {
    for_each_token_run(p, [&p](const PageRun& run) { copy_run(p.rows, run); });
    return;
  }
  const GatherKernels& kernels = gather_kernels();
  DecodeTable table;
  kernels.fill_table(table, p.kind, p.dst_dtype, *p.scale);
  const auto decode =
      element_bytes(p.dst_dtype) == 2 ? kernels.decode_to_2_bytes : kernels.decode_to_4_bytes;
  for_each_token_run(p, [&](const PageRun& run) {
    for_each_dense_piece(p.rows, run, [&](char* to, const char* from, int64_t rows) {
      decode(to, from, rows * p.row_elems, table);
    });
  });
}

}  // namespace kvops::cpu
