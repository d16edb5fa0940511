// Checks that the direct forms share. See rows.h.
// Called by transfer/validate/direct.cpp and embedding_ranges.cpp before anything is written.
#include "transfer/validate/rows.h"

#include <string>

namespace kvops {
namespace {

int64_t inner_elems(const Tensor& tensor, int64_t dims) {
  int64_t elems = 1;
  for (int64_t i = dims; i < tensor.dim(); ++i) elems *= tensor.size(i);
  return elems;
}

int64_t elem_bytes(const Tensor& tensor) { return static_cast<int64_t>(tensor.element_size()); }

void check_at_least(const Tensor& tensor, Arg arg, int64_t rank) {
  if (tensor.dim() < rank) {
    fail(arg, "must have at least " + std::to_string(rank) + " dimension(s), got shape " +
                  shape_text(tensor));
  }
}

// Entries of dimension `dim` are `elems` elements each.
void check_apart(const Tensor& tensor, Arg arg, int64_t dim, int64_t elems) {
  if (tensor.numel() > 0 && tensor.size(dim) > 1 && tensor.stride(dim) < elems) {
    fail(arg, "must not overlap itself (stride " + std::to_string(elems) +
                  " or more in dimension " + std::to_string(dim) + "), got stride " +
                  std::to_string(tensor.stride(dim)));
  }
}

}  // namespace

RowEnd layer_end(const char* op, const Tensor& tensor, const char* name, Access access) {
  const Arg arg{op, name};
  check_at_least(tensor, arg, 1);
  check_dense_from(tensor, arg, 1);
  const int64_t item_elems = inner_elems(tensor, 1);
  if (access == Access::kWritten) check_apart(tensor, arg, 0, item_elems);
  const int64_t stride_bytes = tensor.stride(0) * elem_bytes(tensor);
  return {tensor, name, 0, item_elems, {stride_bytes, stride_bytes}};
}

RowEnd pool_end(const char* op, const Tensor& tensor, const char* name, int64_t layer,
                Access access) {
  const Arg arg{op, name};
  check_at_least(tensor, arg, 3);
  check_dense_from(tensor, arg, 2);
  const int64_t layer_elems = inner_elems(tensor, 2);
  if (access == Access::kWritten) {
    check_apart(tensor, arg, 1, layer_elems);
    check_apart(tensor, arg, 0, (tensor.size(1) - 1) * tensor.stride(1) + layer_elems);
  }
  const int64_t item_elems = inner_elems(tensor, 3);
  return {.tensor = tensor,
          .name = name,
          .offset_bytes = layer * tensor.stride(1) * elem_bytes(tensor),
          .item_elems = item_elems,
          .strides = {.page_bytes = tensor.stride(0) * elem_bytes(tensor),
                      .token_bytes = item_elems * elem_bytes(tensor)}};
}

TransferRow row_between(const char* op, const RowEnd& src, const RowEnd& dst) {
  if (src.tensor.dtype_code() != dst.tensor.dtype_code()) {
    fail({op, dst.name}, "must have dtype " + dtype_name(src.tensor) + " like " + src.name +
                             ", got " + dtype_name(dst.tensor));
  }
  if (src.item_elems != dst.item_elems) {
    fail({op, dst.name}, "must have items of " + std::to_string(src.item_elems) +
                             " elements like " + src.name + ", got shape " +
                             shape_text(dst.tensor));
  }
  const auto* from = static_cast<const char*>(readable(src.tensor, {op, src.name}));
  auto* to = static_cast<char*>(writable(dst.tensor, {op, dst.name}));
  return {
      .src = from == nullptr ? from : from + src.offset_bytes,
      .dst = to == nullptr ? to : to + dst.offset_bytes,
      .bytes = src.item_elems * elem_bytes(src.tensor),
      .src_strides = src.strides,
      .dst_strides = dst.strides,
  };
}

int32_t device_index(const Tensor& tensor) {
  return tensor.is_cpu() ? -1 : tensor.get_device_index();
}

int32_t device_of_copies(const char* op, const NamedTensor& src, const NamedTensor& dst) {
  if (!src.tensor.is_cpu() && !dst.tensor.is_cpu()) check_same_device(op, {src, dst});
  return device_index(dst.tensor.is_cpu() ? src.tensor : dst.tensor);
}

}  // namespace kvops
