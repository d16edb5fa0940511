// Contract of swap_blocks (spec 11, stricter than vLLM: every block id is checked).
// Called by cpu::swap_blocks and cuda::swap_blocks; the devices of src and dst are theirs to check.
#include <string>

#include "common/checks.h"
#include "swap/validate.h"

namespace kvops {
namespace {

constexpr const char* kOp = "swap_blocks";

// Block i begins i * block_size_in_bytes after the first element, so elements must fill their
// memory without gaps; the order of the dimensions does not matter.
void check_fills_memory(const Tensor& tensor, Arg arg) {
  if (tensor.numel() == 0) return;
  int64_t expected_stride = 1;
  int64_t dims_left = tensor.dim();
  for (int64_t i = 0; i < tensor.dim(); ++i) dims_left -= tensor.size(i) == 1;
  for (bool found = true; found && dims_left > 0;) {
    found = false;
    for (int64_t i = 0; i < tensor.dim() && !found; ++i) {
      if (tensor.size(i) == 1 || tensor.stride(i) != expected_stride) continue;
      expected_stride *= tensor.size(i);
      --dims_left;
      found = true;
    }
  }
  if (dims_left > 0) {
    fail(arg, "must fill its memory without gaps (dense, dimensions in any order), got shape " +
                  shape_text(tensor) + " with gaps or overlaps");
  }
}

int64_t blocks_of(const Tensor& tensor, int64_t block_bytes) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size()) / block_bytes;
}

void check_block(int64_t row, int64_t column, int64_t block, int64_t blocks, const char* owner) {
  if (block >= 0 && block < blocks) return;
  const std::string name =
      "block_mapping[" + std::to_string(row) + ", " + std::to_string(column) + "]";
  fail({kOp, name.c_str()}, "must be in [0, " + std::to_string(blocks) + "), the blocks of " +
                                owner + ", got " + std::to_string(block));
}

}  // namespace

SwapBlocksParams validate_swap_blocks(const Tensor& src, const Tensor& dst,
                                      int64_t block_size_in_bytes, const Tensor& block_mapping) {
  const Arg mapping_arg{kOp, "block_mapping"};
  if (!block_mapping.is_cpu()) fail(mapping_arg, "must be on cpu, got another device");
  check_shape(block_mapping, mapping_arg, {kAnySize, 2});
  check_dtype(block_mapping, mapping_arg, {DType::kInt64});
  check_fills_memory(src, {kOp, "src"});
  check_fills_memory(dst, {kOp, "dst"});
  const SwapBlocksParams p = {
      .src = static_cast<const char*>(readable(src, {kOp, "src"})),
      .dst = static_cast<char*>(writable(dst, {kOp, "dst"})),
      .mapping = static_cast<const int64_t*>(readable(block_mapping, mapping_arg)),
      .mapping_row_stride_elems = block_mapping.stride(0),
      .mapping_column_stride_elems = block_mapping.stride(1),
      .num_copies = block_mapping.size(0),
      .block_bytes = block_size_in_bytes,
  };
  if (p.num_copies == 0) return p;
  if (block_size_in_bytes <= 0) {
    fail({kOp, "block_size_in_bytes"},
         "must be positive, got " + std::to_string(block_size_in_bytes));
  }
  const int64_t src_blocks = blocks_of(src, block_size_in_bytes);
  const int64_t dst_blocks = blocks_of(dst, block_size_in_bytes);
  for (int64_t row = 0; row < p.num_copies; ++row) {
    const int64_t* pair = p.mapping + row * p.mapping_row_stride_elems;
    check_block(row, 0, pair[0], src_blocks, "src");
    check_block(row, 1, pair[p.mapping_column_stride_elems], dst_blocks, "dst");
  }
  return p;
}

}  // namespace kvops
