// Checks that all gathers share. See tables.h.
// Called by gather/validate/<op>.cpp before anything is written.
// Looks at shapes, dtypes and strides only: values of the tables may be anything.
#include "gather/validate/tables.h"

#include <string>

namespace kvops {
namespace {

void check_at_least(const Tensor& tensor, Arg arg, int64_t dim, int64_t minimum) {
  if (tensor.size(dim) < minimum) {
    fail(arg, "must have at least " + std::to_string(minimum) + " element(s) in dimension " +
                  std::to_string(dim) + ", got shape " + shape_text(tensor));
  }
}

}  // namespace

void check_count(Arg arg, int64_t count, int64_t limit, const char* of_what) {
  if (count < 0 || count > limit) {
    fail(arg, "must be in [0, " + std::to_string(limit) + "], the " + of_what + ", got " +
                  std::to_string(count));
  }
}

const int32_t* readable_table(const Tensor& tensor, Arg arg, int64_t min_elems) {
  check_dim(tensor, arg, 1);
  check_at_least(tensor, arg, 0, min_elems);
  return readable_int32(tensor, arg);
}

int64_t requests_of(const Tensor& cu_seq_lens, Arg arg) {
  check_dim(cu_seq_lens, arg, 1);
  check_at_least(cu_seq_lens, arg, 0, 1);
  return cu_seq_lens.size(0) - 1;
}

PagedRequests validate_requests(const char* op, const Tensor& block_table,
                                const OptionalTensor& seq_starts, int64_t num_requests,
                                const Tensor& cache, int64_t num_rows) {
  const Arg table_arg{op, "block_table"};
  check_dim(block_table, table_arg, 2);
  check_at_least(block_table, table_arg, 0, num_requests);
  return {
      .block_table = readable_int32(block_table, table_arg),
      .block_table_stride_elems = block_table.stride(0),
      .max_blocks = block_table.size(1),
      .row_starts = nullptr,
      .num_row_starts = 0,
      .seq_starts =
          seq_starts ? readable_table(*seq_starts, {op, "seq_starts"}, num_requests) : nullptr,
      .num_requests = num_requests,
      .num_blocks = cache.size(0),
      .block_size = cache.size(1),
      .num_rows = num_rows,
  };
}

EntryRows validate_entry_rows(const Tensor& cache, Arg cache_arg, const Tensor& dst, Arg dst_arg) {
  check_dense_from(cache, cache_arg, 2);
  check_dense_from(dst, dst_arg, 1);
  const int64_t row_elems = inner_elems(dst, 1);
  if (dst.size(0) > 1 && dst.stride(0) < row_elems) {
    fail(dst_arg, "must have rows that do not overlap (stride " + std::to_string(row_elems) +
                      " or more in dimension 0), got stride " + std::to_string(dst.stride(0)));
  }
  const int64_t cache_elem_bytes = static_cast<int64_t>(cache.element_size());
  const int64_t dst_elem_bytes = static_cast<int64_t>(dst.element_size());
  return {
      .src = static_cast<const char*>(readable(cache, cache_arg)),
      .block_stride_bytes = cache.stride(0) * cache_elem_bytes,
      .entry_stride_bytes = cache.stride(1) * cache_elem_bytes,
      .entry_bytes = inner_elems(cache, 2) * cache_elem_bytes,
      .dst = static_cast<char*>(writable(dst, dst_arg)),
      .row_stride_bytes = dst.stride(0) * dst_elem_bytes,
      .row_bytes = row_elems * dst_elem_bytes,
  };
}

int64_t inner_elems(const Tensor& tensor, int64_t dims) {
  int64_t elems = 1;
  for (int64_t i = dims; i < tensor.dim(); ++i) elems *= tensor.size(i);
  return elems;
}

}  // namespace kvops
