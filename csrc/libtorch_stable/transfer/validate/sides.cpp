// Checks that the kernel forms share. See sides.h.
// Called by transfer/validate/per_layer.cpp and all_layer.cpp before anything is written.
// Sizes come from the caller and may be anything: no product is formed before it is known to fit.
#include "transfer/validate/sides.h"

#include <algorithm>
#include <string>

namespace kvops {
namespace {

// The widest access that every item allows; SGLang's operators ask for the same.
constexpr int64_t kItemAlignmentBytes = 8;

void check_positive(Arg arg, int64_t value) {
  if (value <= 0) fail(arg, "must be positive, got " + std::to_string(value));
}

const int64_t* checked_indices(const Tensor& indices, Arg arg, int64_t count) {
  check_shape(indices, arg, {count});
  return readable_int64(indices, arg);
}

bool is_address_table(const Tensor& tensor) {
  const int32_t code = tensor.dtype_code();
  return code == aoti_torch_dtype_uint64() || code == aoti_torch_dtype_int64();
}

// A pool may be on the host, for a device that reaches its memory.
TokenMemory pool_memory(const char* op, const NamedTensor& pool, const Tensor& indices,
                        Access access) {
  const Arg arg{op, pool.name};
  if (!pool.tensor.is_cpu()) {
    check_same_device(op, {{indices, "src_indices"}, {pool.tensor, pool.name}});
  }
  check_dense_from(pool.tensor, arg, 0);
  void* base = access == Access::kWritten ? writable(pool.tensor, arg)
                                          : const_cast<void*>(readable(pool.tensor, arg));
  return {
      .base = static_cast<char*>(base),
      .layers = nullptr,
      .bytes = pool.tensor.numel() * static_cast<int64_t>(pool.tensor.element_size()),
      .on_host = pool.tensor.is_cpu(),
      .name = pool.name,
  };
}

// What a pool has a whole number of. Pools of another layout or of other items seldom have.
struct Unit {
  const char* name;
  int64_t bytes;
};

// Fills in the memory of every pool; returns the bytes of the smallest one.
int64_t set_memory(TransferSide& side, const char* op, Pools pools, const Tensor& indices,
                   Access access, const Unit& unit) {
  int64_t least_bytes = INT64_MAX;
  TokenMemory* memory = side.memory;
  for (const NamedTensor& pool : pools) {
    *memory = pool_memory(op, pool, indices, access);
    if (memory->bytes % unit.bytes != 0) {
      fail({op, pool.name}, std::string("must hold whole ") + unit.name + " of " +
                                std::to_string(unit.bytes) + " bytes, got " +
                                std::to_string(memory->bytes) + " bytes");
    }
    least_bytes = std::min(least_bytes, memory->bytes);
    ++memory;
  }
  return least_bytes;
}

void check_layout_dim(const TransferParams& params, const PageFirst& layout) {
  const int64_t item_bytes = params.chunk_bytes * params.num_heads;
  if (layout.layout_dim <= 0 || layout.layout_dim % item_bytes != 0) {
    fail({params.op, layout.layout_dim_name}, "must be a positive multiple of item_size (" +
                                                  std::to_string(item_bytes) + "), got " +
                                                  std::to_string(layout.layout_dim));
  }
}

int64_t layers_of(const TransferParams& params, const PageFirst& layout) {
  return layout.layout_dim / (params.chunk_bytes * params.num_heads);
}

}  // namespace

TransferParams validate_items(const char* op, const Tensor& src_indices, const Tensor& dst_indices,
                              int64_t item_size, const Limits& limits) {
  check_same_device(op, {{src_indices, "src_indices"}, {dst_indices, "dst_indices"}});
  check_dim(src_indices, {op, "src_indices"}, 1);
  const int64_t num_items = src_indices.size(0);
  if (item_size <= 0 || item_size % kItemAlignmentBytes != 0) {
    fail({op, "item_size"},
         "must be a positive multiple of 8 bytes, got " + std::to_string(item_size));
  }
  check_positive({op, "block_quota"}, limits.block_quota);
  check_positive({op, "num_warps_per_block"}, limits.num_warps_per_block);
  return {
      .op = op,
      .src_indices = checked_indices(src_indices, {op, "src_indices"}, num_items),
      .dst_indices = checked_indices(dst_indices, {op, "dst_indices"}, num_items),
      .num_items = num_items,
      .device = src_indices.is_cpu() ? -1 : src_indices.get_device_index(),
      .src = {},
      .dst = {},
      .num_parts = 0,
      .num_layers = 1,
      .num_heads = 1,
      .chunk_bytes = item_size,
      .block_quota = limits.block_quota,
      .num_warps_per_block = limits.num_warps_per_block,
  };
}

void set_heads(TransferParams& params, const PageHead& layout) {
  check_positive({params.op, "page_size"}, layout.page_size);
  check_positive({params.op, "head_num"}, layout.head_num);
  const int64_t item_bytes = params.chunk_bytes;
  if (item_bytes % layout.head_num != 0 ||
      item_bytes / layout.head_num % kItemAlignmentBytes != 0) {
    fail({params.op, "head_num"}, "must divide item_size (" + std::to_string(item_bytes) +
                                      ") into multiples of 8 bytes, got " +
                                      std::to_string(layout.head_num));
  }
  params.num_heads = layout.head_num;
  params.chunk_bytes = item_bytes / layout.head_num;
}

TransferSide layer_first(const TransferParams& params, const Tensor& indices, Pools pools,
                         Access access) {
  TransferSide side{};
  const int64_t item_bytes = params.chunk_bytes * params.num_heads;
  const int64_t bytes = set_memory(side, params.op, pools, indices, access, {"items", item_bytes});
  side.grid = {.num_tokens = bytes / item_bytes, .page_tokens = 1};
  side.strides = {.page_bytes = item_bytes, .token_bytes = item_bytes};
  side.head_stride_bytes = params.chunk_bytes;
  return side;
}

TransferSide layer_tables(const TransferParams& params, const Tensor& indices, Pools tables) {
  const int64_t item_bytes = params.chunk_bytes * params.num_heads;
  TransferSide side{};
  side.grid = {.num_tokens = kUnknownTokens, .page_tokens = 1};
  side.strides = {.page_bytes = item_bytes, .token_bytes = item_bytes};
  side.head_stride_bytes = params.chunk_bytes;
  TokenMemory* memory = side.memory;
  for (const NamedTensor& table : tables) {
    const Arg arg{params.op, table.name};
    check_same_device(params.op, {{indices, "src_indices"}, table});
    check_shape(table.tensor, arg, {params.num_layers});
    if (!is_address_table(table.tensor)) {
      fail(arg, "must have dtype uint64 or int64 (addresses), got " + dtype_name(table.tensor));
    }
    check_stride(table.tensor, arg, 0, 1);
    memory->layers = static_cast<const uint64_t*>(readable(table.tensor, arg));
    memory->name = table.name;
    ++memory;
  }
  return side;
}

TransferSide page_first(const TransferParams& params, const Tensor& indices, Pools pools,
                        Access access, const PageFirst& layout) {
  check_layout_dim(params, layout);
  TransferSide side{};
  const int64_t bytes =
      set_memory(side, params.op, pools, indices, access, {"tokens", layout.layout_dim});
  side.grid = {.num_tokens = bytes / layout.layout_dim, .page_tokens = 1};
  side.strides = {.page_bytes = layout.layout_dim, .token_bytes = layout.layout_dim};
  side.layer_stride_bytes = params.chunk_bytes;
  return side;
}

TransferSide page_head(const TransferParams& params, const Tensor& indices, Pools pools,
                       Access access, const PageHead& layout) {
  check_layout_dim(params, layout.tokens);
  TransferSide side{};
  const int64_t token_bytes = layout.tokens.layout_dim;
  int64_t page_bytes = 0;
  // No pool holds a page of such a size; one without a byte holds none of any.
  if (__builtin_mul_overflow(token_bytes, layout.page_size, &page_bytes)) page_bytes = INT64_MAX;
  const int64_t bytes = set_memory(side, params.op, pools, indices, access, {"pages", page_bytes});
  side.grid = {.num_tokens = bytes / page_bytes * layout.page_size,
               .page_tokens = layout.page_size};
  side.strides = {.page_bytes = page_bytes, .token_bytes = token_bytes / layout.head_num};
  side.head_stride_bytes = page_bytes / layout.head_num;
  side.layer_stride_bytes = params.chunk_bytes;
  return side;
}

void select_layer(const TransferParams& params, TransferSide& side, int64_t layer_id,
                  const PageFirst& layout) {
  const int64_t layers = layers_of(params, layout);
  if (layer_id < 0 || layer_id >= layers) {
    fail({params.op, "layer_id"}, "must be in [0, " + std::to_string(layers) + "), the items of " +
                                      layout.layout_dim_name + ", got " + std::to_string(layer_id));
  }
  if (side.grid.num_tokens == 0) return;
  for (TokenMemory& memory : side.memory) {
    if (memory.base == nullptr) continue;
    memory.base += layer_id * side.layer_stride_bytes;
    memory.bytes -= layer_id * side.layer_stride_bytes;
  }
}

void check_layers_fit(const TransferParams& params, const PageFirst& layout) {
  const int64_t layers = layers_of(params, layout);
  if (params.num_layers > layers) {
    fail({params.op, "num_layers"}, "must be at most " + std::to_string(layers) +
                                        ", the items of " + layout.layout_dim_name + ", got " +
                                        std::to_string(params.num_layers));
  }
}

}  // namespace kvops
