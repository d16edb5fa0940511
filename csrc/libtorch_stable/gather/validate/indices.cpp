// Checked mode of the gathers: every index value that a row depends on. See gather/validate.h.
// Called between validation and the first write, with tables that the host can read.
// int64 throughout: no int32 value, however hostile, overflows.
#include <string>

#include "common/checks.h"
#include "gather/validate.h"

namespace kvops {
namespace {

[[noreturn]] void fail_value(const char* op, const std::string& element, const std::string& what,
                             int64_t value) {
  fail({op, element.c_str()}, "must be " + what + ", got " + std::to_string(value));
}

std::string element(const char* name, int64_t index) {
  return std::string(name) + "[" + std::to_string(index) + "]";
}

std::string range(int64_t low, int64_t high) {
  return "in [" + std::to_string(low) + ", " + std::to_string(high) + ")";
}

void check_row_starts(const char* op, const char* name, const PagedRequests& requests,
                      int64_t dst_rows) {
  int64_t previous = 0;
  for (int64_t i = 0; i < requests.num_row_starts; ++i) {
    const int64_t start = requests.row_starts[i];
    if (start < 0 || start > dst_rows) {
      fail_value(op, element(name, i), range(0, dst_rows + 1), start);
    }
    if (start < previous) {
      fail_value(op, element(name, i),
                 "at least " + std::to_string(previous) + ", the value before it", start);
    }
    previous = start;
  }
}

void check_blocks(const char* op, const PagedRequests& requests, int64_t request, int64_t rows) {
  const int64_t start = requests.seq_starts ? requests.seq_starts[request] : 0;
  if (start < 0) fail_value(op, element("seq_starts", request), "0 or more", start);
  if (rows <= 0) return;
  const int64_t blocks =
      requests.block_size > 0 ? (start + rows - 1) / requests.block_size + 1 : INT64_MAX;
  if (blocks > requests.max_blocks) {
    const std::string table = "the " + std::to_string(requests.max_blocks) +
                              " blocks that block_table has for request " + std::to_string(request);
    if (requests.seq_starts != nullptr) {
      fail_value(op, element("seq_starts", request),
                 "such that " + std::to_string(rows) + " positions end within " + table, start);
    }
    fail({op, "block_table"}, "must have a block for every position, got " + std::to_string(rows) +
                                  " positions for " + table);
  }
  const int32_t* table = requests.block_table + request * requests.block_table_stride_elems;
  for (int64_t i = start / requests.block_size; i < blocks; ++i) {
    if (table[i] < 0 || table[i] >= requests.num_blocks) {
      const std::string name =
          "block_table[" + std::to_string(request) + ", " + std::to_string(i) + "]";
      fail_value(op, name, range(0, requests.num_blocks), table[i]);
    }
  }
}

}  // namespace

void check_indices(const char* op, const char* starts_name, const PagedRequests& requests,
                   int64_t dst_rows) {
  check_row_starts(op, starts_name, requests, dst_rows);
  for (int64_t request = 0; request < requests.num_requests; ++request) {
    const int64_t first = requests.row_starts[request];
    const int64_t next = request + 1;
    const int64_t end =
        next < requests.num_row_starts ? requests.row_starts[next] : requests.num_rows;
    check_blocks(op, requests, request,
                 (end < requests.num_rows ? end : requests.num_rows) - first);
  }
}

void check_token_to_seq(const char* op, const int32_t* token_to_seq,
                        const PagedRequests& requests) {
  const int32_t* starts = requests.row_starts;
  for (int64_t row = 0; row < requests.num_rows; ++row) {
    const int64_t request = token_to_seq[row];
    if (request < 0 || request >= requests.num_requests) {
      fail_value(op, element("token_to_seq", row), range(0, requests.num_requests), request);
    }
    const bool in_some = row >= starts[0] && row < starts[requests.num_requests];
    if (in_some && (row < starts[request] || row >= starts[request + 1])) {
      fail_value(op, element("token_to_seq", row),
                 "the request whose rows in cu_seq_lens include " + std::to_string(row), request);
    }
  }
}

}  // namespace kvops
