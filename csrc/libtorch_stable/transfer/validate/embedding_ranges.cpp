// Contract of transfer_embedding_ranges_direct (spec 13, stricter than SGLang: ranges are checked).
// Called through Transfer<> (transfer/ops.h) by the CPU and the CUDA operator alike.
#include <string>

#include "transfer/validate.h"
#include "transfer/validate/rows.h"

namespace kvops {
namespace {

constexpr const char* kOp = "transfer_embedding_ranges_direct";

struct Starts {
  const IntList& values;
  const char* name;
  int64_t num_rows;
  const char* owner;
};

void check_count(const IntList& list, const char* name, size_t count) {
  if (list.size() == count) return;
  fail({kOp, name}, "must have " + std::to_string(count) + " elements like src_starts, got " +
                        std::to_string(list.size()));
}

void check_range(const Starts& starts, size_t i, int64_t length) {
  const int64_t start = starts.values[i];
  if (start >= 0 && start <= starts.num_rows - length) return;
  fail({kOp, EntryName(starts.name, i).c_str()},
       "must leave room for " + std::to_string(length) + " row(s) among the " +
           std::to_string(starts.num_rows) + " of " + starts.owner + ", got " +
           std::to_string(start));
}

}  // namespace

EmbeddingRangesParams validate_transfer_embedding_ranges_direct(const Tensor& src,
                                                                const Tensor& dst,
                                                                const IntList& src_starts,
                                                                const IntList& dst_starts,
                                                                const IntList& lengths) {
  check_count(dst_starts, "dst_starts", src_starts.size());
  check_count(lengths, "lengths", src_starts.size());
  // None has no element size to count with.
  readable(src, {kOp, "src"});
  readable(dst, {kOp, "dst"});
  const RowEnd from = layer_end(kOp, src, "src", Access::kRead);
  const RowEnd to = layer_end(kOp, dst, "dst", Access::kWritten);
  EmbeddingRangesParams p = {
      .op = kOp,
      .row = row_between(kOp, from, to),
      .src_starts = src_starts.data(),
      .dst_starts = dst_starts.data(),
      .lengths = lengths.data(),
      .num_ranges = static_cast<int64_t>(src_starts.size()),
      .device = device_of_copies(kOp, {src, "src"}, {dst, "dst"}),
  };
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] < 0) {
      fail({kOp, EntryName("lengths", i).c_str()},
           "must not be negative, got " + std::to_string(lengths[i]));
    }
    check_range({src_starts, "src_starts", src.size(0), "src"}, i, lengths[i]);
    check_range({dst_starts, "dst_starts", dst.size(0), "dst"}, i, lengths[i]);
  }
  // Rows without bytes may be too many to be counted.
  if (p.row.bytes == 0) p.num_ranges = 0;
  return p;
}

}  // namespace kvops
