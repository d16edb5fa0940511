// Contract of cp_gather_cache (spec 7.2, wider than vLLM: any dtype and entry shape).
// Called by cpu::cp_gather_cache and cuda::cp_gather_cache.
#include "gather/validate.h"
#include "gather/validate/tables.h"

namespace kvops {
namespace {

constexpr const char* kOp = "cp_gather_cache";

// Any dtype will do, also those that dtype_of does not know: bytes are copied.
void check_same_dtype(const Tensor& src_cache, const Tensor& dst) {
  int32_t src_code = 0;
  int32_t dst_code = 0;
  aoti_torch_get_dtype(src_cache.get(), &src_code);
  aoti_torch_get_dtype(dst.get(), &dst_code);
  if (src_code != dst_code) {
    fail({kOp, "dst"},
         "must have dtype " + dtype_name(src_cache) + " like src_cache, got " + dtype_name(dst));
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
  check_same_dtype(src_cache, dst);
  check_min_dim(src_cache, src_arg, 2);
  check_min_dim(dst, dst_arg, 1);
  check_row_elems(src_cache, dst, dst_arg);
  check_count({kOp, "batch_size"}, batch_size, requests_of(cu_seq_lens, {kOp, "cu_seq_lens"}),
              "requests of cu_seq_lens");
  PagedRequests requests =
      validate_requests(kOp, block_table, seq_starts, batch_size, src_cache, dst.size(0));
  requests.num_row_starts = batch_size + 1;
  requests.row_starts = readable_table(cu_seq_lens, {kOp, "cu_seq_lens"}, requests.num_row_starts);
  return {.requests = requests, .rows = validate_entry_rows(src_cache, src_arg, dst, dst_arg)};
}

}  // namespace kvops
