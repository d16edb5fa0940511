// Contract of cp_gather_cache (spec 7.2, wider than vLLM: elements of 8 bytes, any entry shape).
// Called by cpu::cp_gather_cache and cuda::cp_gather_cache.
#include "gather/validate.h"
#include "gather/validate/tables.h"

namespace kvops {
namespace {

constexpr const char* kOp = "cp_gather_cache";
constexpr size_t kMaxElementBytes = 8;

// Bytes are copied, so dtypes that dtype_of does not know will do, too.
void check_dtypes(const Tensor& src_cache, const Tensor& dst) {
  if (src_cache.dtype_code() != dst.dtype_code()) {
    fail({kOp, "dst"},
         "must have dtype " + dtype_name(src_cache) + " like src_cache, got " + dtype_name(dst));
  }
  if (src_cache.element_size() > kMaxElementBytes) {
    fail({kOp, "src_cache"},
         "must have elements of at most 8 bytes, got dtype " + dtype_name(src_cache));
  }
}

// Entries may be of any shape, and flattened in dst.
void check_rows_fit_entries(const Tensor& src_cache, const Tensor& dst) {
  if (src_cache.dim() < 2) {
    fail({kOp, "src_cache"}, "must have at least 2 dimensions, got shape " + shape_text(src_cache));
  }
  const int64_t elems = inner_elems(src_cache, 2);
  if (dst.dim() < 1 || inner_elems(dst, 1) != elems) {
    fail({kOp, "dst"}, "must have rows of " + std::to_string(elems) +
                           " elements like the entries of src_cache, got shape " + shape_text(dst));
  }
}

}  // namespace

CpGatherCacheParams validate_cp_gather_cache(const Tensor& src_cache, const Tensor& dst,
                                             const Tensor& block_table, const Tensor& cu_seq_lens,
                                             int64_t batch_size, const OptionalTensor& seq_starts) {
  const Arg src_arg{kOp, "src_cache"};
  const Arg dst_arg{kOp, "dst"};
  check_same_device(kOp, {{src_cache, "src_cache"},
                          {dst, "dst"},
                          {block_table, "block_table"},
                          {cu_seq_lens, "cu_seq_lens"}});
  if (seq_starts) {
    check_same_device(kOp, {{src_cache, "src_cache"}, {*seq_starts, "seq_starts"}});
  }
  check_dtypes(src_cache, dst);
  check_rows_fit_entries(src_cache, dst);
  check_count({kOp, "batch_size"}, batch_size, requests_of(cu_seq_lens, {kOp, "cu_seq_lens"}),
              "requests of cu_seq_lens");
  PagedRequests requests =
      validate_requests(kOp, block_table, seq_starts, batch_size, src_cache, dst.size(0));
  requests.num_row_starts = batch_size + 1;
  requests.row_starts = readable_table(cu_seq_lens, {kOp, "cu_seq_lens"}, requests.num_row_starts);
  return {.requests = requests, .rows = validate_entry_rows(src_cache, src_arg, dst, dst_arg)};
}

}  // namespace kvops
