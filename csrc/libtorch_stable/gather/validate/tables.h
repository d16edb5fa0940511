// Checks that all gathers share: tables of requests, entries of the cache, rows of dst.
// Called by gather/validate/<op>.cpp only.
// Tables may be longer than the number of requests (padding), never shorter.
#pragma once

#include <cstdint>

#include "common/checks.h"
#include "gather/params.h"

namespace kvops {

// `count` must be in [0, limit]; `of_what` says what the limit is, for the message.
void check_count(Arg arg, int64_t count, int64_t limit, const char* of_what);

// int32, 1-D, dense, at least `min_elems` long.
const int32_t* readable_table(const Tensor& tensor, Arg arg, int64_t min_elems);

// The number of requests that cumulative lengths describe.
int64_t requests_of(const Tensor& cu_seq_lens, Arg arg);

// Everything but the row starts: block_table, seq_starts, and the blocks of `cache`.
PagedRequests validate_requests(const char* op, const Tensor& block_table,
                                const OptionalTensor& seq_starts, int64_t num_requests,
                                const Tensor& cache, int64_t num_rows);

// cache is [num_blocks, block_size, *entry] with dense entries, dst [rows, ...] with dense rows
// that do not overlap. Pointers and strides; the sizes of entries and rows are compared elsewhere.
EntryRows validate_entry_rows(const Tensor& cache, Arg cache_arg, const Tensor& dst, Arg dst_arg);

// Number of elements of one index of the first `dims` dimensions.
int64_t inner_elems(const Tensor& tensor, int64_t dims);

}  // namespace kvops
