// Checks that the kernel forms share: indices, sizes, and where the tokens of a side are.
// Called by transfer/validate/per_layer.cpp and all_layer.cpp only.
// Pools are raw memory: dtype and shape say how many bytes there are, item_size says the rest.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "common/checks.h"
#include "transfer/params.h"
#include "transfer/validate/access.h"

namespace kvops {

// The argument for K, and the one for V if there is one.
using Pools = std::initializer_list<NamedTensor>;

struct Limits {
  int64_t block_quota;
  int64_t num_warps_per_block;
};

// Everything but the two sides: one layer, one head.
TransferParams validate_items(const char* op, const Tensor& src_indices, const Tensor& dst_indices,
                              int64_t item_size, const Limits& limits);

struct PageFirst {
  const char* layout_dim_name;
  int64_t layout_dim;  // bytes of a token, all layers
};

struct PageHead {
  PageFirst tokens;
  int64_t page_size;
  int64_t head_num;
};

// Call set_heads first, if at all.
void set_heads(TransferParams& params, const PageHead& layout);

// [tokens, item]
TransferSide layer_first(const TransferParams& params, const Tensor& indices, Pools pools,
                         Access access);
// [num_layers] addresses of the same
TransferSide layer_tables(const TransferParams& params, const Tensor& indices, Pools tables);
// [tokens, layers, item]
TransferSide page_first(const TransferParams& params, const Tensor& indices, Pools pools,
                        Access access, const PageFirst& layout);
// [pages, heads, page_size, layers, item / heads]
TransferSide page_head(const TransferParams& params, const Tensor& indices, Pools pools,
                       Access access, const PageHead& layout);

// One layer of a side that has several of them.
void select_layer(const TransferParams& params, TransferSide& side, int64_t layer_id,
                  const PageFirst& layout);
// All of them: there must be room for num_layers.
void check_layers_fit(const TransferParams& params, const PageFirst& layout);

}  // namespace kvops
