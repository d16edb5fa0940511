// Contracts of the direct forms (spec 13, stricter than SGLang: dtypes, shapes and sizes agree).
// Called through Transfer<> (transfer/ops.h) by the CPU and the CUDA operator alike.
#include <algorithm>
#include <string>

#include "transfer/validate.h"
#include "transfer/validate/rows.h"

namespace kvops {
namespace {

struct NamedList {
  const TensorList& tensors;
  const char* name;

  size_t size() const { return tensors.size(); }
};

// All entries of a list are on one device.
void check_one_device(const char* op, const NamedList& list) {
  for (size_t i = 1; i < list.size(); ++i) {
    if (device_index(list.tensors[i]) == device_index(list.tensors[0])) continue;
    const EntryName first(list.name, 0);
    const EntryName other(list.name, i);
    check_same_device(op, {{list.tensors[0], first.c_str()}, {list.tensors[i], other.c_str()}});
  }
}

DirectTransferParams validate_items(const char* op, const Tensor& src_indices,
                                    const Tensor& dst_indices, int64_t page_size) {
  if (page_size <= 0) {
    fail({op, "page_size"}, "must be positive, got " + std::to_string(page_size));
  }
  check_dim(src_indices, {op, "src_indices"}, 1);
  check_dtype(src_indices, {op, "src_indices"}, {DType::kInt64});
  const int64_t num_items = src_indices.size(0);
  check_shape(dst_indices, {op, "dst_indices"}, {num_items});
  if (num_items % page_size != 0) {
    fail({op, "src_indices"}, "must have a multiple of page_size (" + std::to_string(page_size) +
                                  ") elements, got " + std::to_string(num_items));
  }
  return {
      .op = op,
      .src_indices = readable_int64(src_indices, {op, "src_indices"}),
      .dst_indices = readable_int64(dst_indices, {op, "dst_indices"}),
      .num_items = num_items,
      .src_indices_device = device_index(src_indices),
      .dst_indices_device = device_index(dst_indices),
      .device = -1,
      .src = {.num_tokens = 0, .page_tokens = 1},
      .dst = {.num_tokens = 0, .page_tokens = 1},
      .rows = {},
  };
}

// The device that the copies are work of; indices must be there or on the host.
void set_device(DirectTransferParams& p, const NamedList& src, const NamedList& dst) {
  const EntryName src_name(src.name, 0);
  const EntryName dst_name(dst.name, 0);
  p.device = device_of_copies(p.op, {src.tensors[0], src_name.c_str()},
                              {dst.tensors[0], dst_name.c_str()});
  const auto check = [&p, &dst_name](int32_t device, const char* name) {
    if (device < 0 || p.device < 0 || device == p.device) return;
    fail({p.op, name}, "must be on the host or on cuda:" + std::to_string(p.device) + " like " +
                           dst_name.c_str() + ", got cuda:" + std::to_string(device));
  };
  check(p.src_indices_device, "src_indices");
  check(p.dst_indices_device, "dst_indices");
  if (p.device < 0) p.device = std::max(p.src_indices_device, p.dst_indices_device);
}

// Tokens that every layer of the list has.
int64_t tokens_of(const NamedList& layers) {
  int64_t tokens = INT64_MAX;
  for (const Tensor& layer : layers.tensors) tokens = std::min(tokens, layer.size(0));
  return tokens;
}

// Page-first pools beside a list of layers: one pool is an MLA cache, two are K and V, and then
// the layers of K come first. Items go from one to the other.
struct PoolsAndLayers {
  NamedList pools;
  NamedList layers;
  int64_t first_layer;
  Access pool_access;

  bool from_pools() const { return pool_access == Access::kRead; }
  int64_t layers_per_pool() const { return static_cast<int64_t>(layers.size() / pools.size()); }
  size_t pool_of(size_t i) const { return i / static_cast<size_t>(layers_per_pool()); }
  int64_t layer_of(size_t i) const {
    return first_layer + static_cast<int64_t>(i) % layers_per_pool();
  }

  TokenGrid pool_grid(int64_t page_size) const {
    TokenGrid grid{.num_tokens = INT64_MAX, .page_tokens = page_size};
    for (const Tensor& pool : pools.tensors) {
      int64_t tokens = 0;
      // Only pools without elements can be that large.
      if (__builtin_mul_overflow(pool.size(0), page_size, &tokens)) tokens = INT64_MAX;
      grid.num_tokens = std::min(grid.num_tokens, tokens);
    }
    return grid;
  }
};

void check_page_size(const char* op, const NamedList& pools, int64_t page_size) {
  for (size_t i = 0; i < pools.size(); ++i) {
    const Tensor& pool = pools.tensors[i];
    const EntryName name(pools.name, i);
    if (pool.dim() >= 3 && pool.size(2) == page_size) continue;
    fail({op, name.c_str()}, "must have shape [pages, layers, " + std::to_string(page_size) +
                                 " (page_size), ...], got " + shape_text(pool));
  }
}

void check_lists(const char* op, const PoolsAndLayers& lists, int64_t page_size, Arg layer_arg) {
  const NamedList& pools = lists.pools;
  const NamedList& layers = lists.layers;
  const int64_t first_layer = lists.first_layer;
  if (pools.size() != 1 && pools.size() != 2) {
    fail({op, pools.name},
         "must have 1 tensor (MLA) or 2 (K and V), got " + std::to_string(pools.size()));
  }
  if (layers.size() % pools.size() != 0) {
    fail({op, layers.name}, "must have as many layers of K as of V, got " +
                                std::to_string(layers.size()) + " tensors");
  }
  check_one_device(op, pools);
  check_one_device(op, layers);
  check_page_size(op, pools, page_size);
  for (size_t i = 0; i < pools.size(); ++i) {
    const int64_t room = pools.tensors[i].size(1) - lists.layers_per_pool();
    if (first_layer >= 0 && first_layer <= room) continue;
    fail(layer_arg, "must leave room for " + std::to_string(lists.layers_per_pool()) +
                        " layer(s) among the " + std::to_string(pools.tensors[i].size(1)) + " of " +
                        EntryName(pools.name, i).c_str() + ", got layers from " +
                        std::to_string(first_layer) + " on");
  }
}

// A row for each layer, between it and its place in a pool.
void set_rows(DirectTransferParams& p, const PoolsAndLayers& lists) {
  const Access layer_access = lists.from_pools() ? Access::kWritten : Access::kRead;
  p.rows.reserve(lists.layers.size());
  for (size_t i = 0; i < lists.layers.size(); ++i) {
    const size_t k = lists.pool_of(i);
    const EntryName pool_name(lists.pools.name, k);
    const EntryName layer_name(lists.layers.name, i);
    const RowEnd pool = pool_end(p.op, lists.pools.tensors[k], pool_name.c_str(), lists.layer_of(i),
                                 lists.pool_access);
    const RowEnd layer = layer_end(p.op, lists.layers.tensors[i], layer_name.c_str(), layer_access);
    p.rows.push_back(lists.from_pools() ? row_between(p.op, pool, layer)
                                        : row_between(p.op, layer, pool));
  }
}

// `layer_arg` is to blame if a pool has not as many layers.
DirectTransferParams validate_paged(const char* op, const PoolsAndLayers& lists, Arg layer_arg,
                                    const Tensor& src_indices, const Tensor& dst_indices,
                                    int64_t page_size) {
  DirectTransferParams p = validate_items(op, src_indices, dst_indices, page_size);
  check_lists(op, lists, page_size, layer_arg);
  if (lists.layers.size() == 0) return p;
  const bool from_pools = lists.from_pools();
  set_device(p, from_pools ? lists.pools : lists.layers, from_pools ? lists.layers : lists.pools);
  set_rows(p, lists);
  (from_pools ? p.src : p.dst) = lists.pool_grid(page_size);
  (from_pools ? p.dst : p.src).num_tokens = tokens_of(lists.layers);
  return p;
}

}  // namespace

DirectTransferParams validate_transfer_kv_direct(const TensorList& src_layers,
                                                 const TensorList& dst_layers,
                                                 const Tensor& src_indices,
                                                 const Tensor& dst_indices, int64_t page_size) {
  constexpr const char* kOp = "transfer_kv_direct";
  DirectTransferParams p = validate_items(kOp, src_indices, dst_indices, page_size);
  const NamedList src{src_layers, "src_layers"};
  const NamedList dst{dst_layers, "dst_layers"};
  if (src.size() != dst.size()) {
    fail({kOp, dst.name}, "must have " + std::to_string(src.size()) +
                              " tensors like src_layers, got " + std::to_string(dst.size()));
  }
  if (src.size() == 0) return p;
  check_one_device(kOp, src);
  check_one_device(kOp, dst);
  set_device(p, src, dst);
  p.rows.reserve(src.size());
  for (size_t i = 0; i < src.size(); ++i) {
    const EntryName src_name(src.name, i);
    const EntryName dst_name(dst.name, i);
    p.rows.push_back(
        row_between(kOp, layer_end(kOp, src_layers[i], src_name.c_str(), Access::kRead),
                    layer_end(kOp, dst_layers[i], dst_name.c_str(), Access::kWritten)));
  }
  p.src.num_tokens = tokens_of(src);
  p.dst.num_tokens = tokens_of(dst);
  return p;
}

DirectTransferParams validate_transfer_kv_per_layer_direct_pf_lf(
    const TensorList& src_ptrs, const TensorList& dst_ptrs, const Tensor& src_indices,
    const Tensor& dst_indices, int64_t layer_id, int64_t page_size) {
  constexpr const char* kOp = "transfer_kv_per_layer_direct_pf_lf";
  const PoolsAndLayers lists{.pools = {src_ptrs, "src_ptrs"},
                             .layers = {dst_ptrs, "dst_ptrs"},
                             .first_layer = layer_id,
                             .pool_access = Access::kRead};
  return validate_paged(kOp, lists, {kOp, "layer_id"}, src_indices, dst_indices, page_size);
}

DirectTransferParams validate_transfer_kv_all_layer_direct_lf_pf(const TensorList& src_ptrs,
                                                                 const TensorList& dst_ptrs,
                                                                 const Tensor& src_indices,
                                                                 const Tensor& dst_indices,
                                                                 int64_t page_size) {
  constexpr const char* kOp = "transfer_kv_all_layer_direct_lf_pf";
  const PoolsAndLayers lists{.pools = {dst_ptrs, "dst_ptrs"},
                             .layers = {src_ptrs, "src_ptrs"},
                             .first_layer = 0,
                             .pool_access = Access::kWritten};
  return validate_paged(kOp, lists, {kOp, "src_ptrs"}, src_indices, dst_indices, page_size);
}

}  // namespace kvops
