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
// the layers of K come first.
struct PoolsAndLayers {
  NamedList pools;
  NamedList layers;
  int64_t first_layer;

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
  const auto& [pools, layers, first_layer] = lists;
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
  DirectTransferParams p = validate_items(kOp, src_indices, dst_indices, page_size);
  const PoolsAndLayers lists{{src_ptrs, "src_ptrs"}, {dst_ptrs, "dst_ptrs"}, layer_id};
  check_lists(kOp, lists, page_size, {kOp, "layer_id"});
  if (dst_ptrs.empty()) return p;
  set_device(p, lists.pools, lists.layers);
  p.rows.reserve(dst_ptrs.size());
  for (size_t i = 0; i < dst_ptrs.size(); ++i) {
    const size_t pool = lists.pool_of(i);
    const EntryName src_name("src_ptrs", pool);
    const EntryName dst_name("dst_ptrs", i);
    p.rows.push_back(row_between(
        kOp, pool_end(kOp, src_ptrs[pool], src_name.c_str(), lists.layer_of(i), Access::kRead),
        layer_end(kOp, dst_ptrs[i], dst_name.c_str(), Access::kWritten)));
  }
  p.src = lists.pool_grid(page_size);
  p.dst.num_tokens = tokens_of(lists.layers);
  return p;
}

DirectTransferParams validate_transfer_kv_all_layer_direct_lf_pf(const TensorList& src_ptrs,
                                                                 const TensorList& dst_ptrs,
                                                                 const Tensor& src_indices,
                                                                 const Tensor& dst_indices,
                                                                 int64_t page_size) {
  constexpr const char* kOp = "transfer_kv_all_layer_direct_lf_pf";
  DirectTransferParams p = validate_items(kOp, src_indices, dst_indices, page_size);
  const PoolsAndLayers lists{{dst_ptrs, "dst_ptrs"}, {src_ptrs, "src_ptrs"}, 0};
  check_lists(kOp, lists, page_size, {kOp, "src_ptrs"});
  if (src_ptrs.empty()) return p;
  set_device(p, lists.layers, lists.pools);
  p.rows.reserve(src_ptrs.size());
  for (size_t i = 0; i < src_ptrs.size(); ++i) {
    const size_t pool = lists.pool_of(i);
    const EntryName src_name("src_ptrs", i);
    const EntryName dst_name("dst_ptrs", pool);
    p.rows.push_back(row_between(
        kOp, layer_end(kOp, src_ptrs[i], src_name.c_str(), Access::kRead),
        pool_end(kOp, dst_ptrs[pool], dst_name.c_str(), lists.layer_of(i), Access::kWritten)));
  }
  p.src.num_tokens = tokens_of(lists.layers);
  p.dst = lists.pool_grid(page_size);
  return p;
}

}  // namespace kvops
