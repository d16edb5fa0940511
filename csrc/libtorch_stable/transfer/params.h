// Parameters of the transfers, CPU and CUDA alike: plain structs, filled by transfer/validate.
// A transfer copies items: what one token has in one layer of K, of V, or of an MLA cache. Every
// layout is one formula (offset_of), so no layout has a kernel of its own.
// Values of index tensors are never trusted by who reads them; addresses in tables have to be.
#pragma once

#include <cstdint>
#include <vector>

namespace kvops {

// Which tokens one side has, and how many of them lie together in a page.
struct TokenGrid {
  int64_t num_tokens;   // kUnknownTokens where all that is given is a table of addresses
  int64_t page_tokens;  // 1: tokens are not in pages
};

inline constexpr int64_t kUnknownTokens = INT64_MAX;

struct TokenStrides {
  int64_t page_bytes;   // from a page to the next
  int64_t token_bytes;  // from a token to the next within a page
};

// From where token 0 is. The token must be in [0, num_tokens).
#if defined(__CUDACC__)
__host__ __device__
#endif
    inline int64_t offset_of(int64_t page_tokens, const TokenStrides& strides, int64_t token) {
  if (page_tokens == 1) return token * strides.page_bytes;
  const int64_t page = token / page_tokens;
  return page * strides.page_bytes + (token - page * page_tokens) * strides.token_bytes;
}

// K, V, or an MLA cache, on one side.
struct TokenMemory {
  char* base;              // of layer 0, head 0; null if there is a table
  const uint64_t* layers;  // [num_layers], the address of each layer; null if there is a base
  int64_t bytes;           // from base on
  bool on_host;            // base, that is
  const char* name;        // the argument's
};

inline constexpr int kMaxParts = 2;  // K and V

struct TransferSide {
  TokenGrid grid;
  TokenStrides strides;
  int64_t layer_stride_bytes;
  int64_t head_stride_bytes;
  TokenMemory memory[kMaxParts];
};

// Kernel forms: token src_indices[i] goes to token dst_indices[i], in every layer.
struct TransferParams {
  const char* op;
  const int64_t* src_indices;  // [num_items]
  const int64_t* dst_indices;  // [num_items]
  int64_t num_items;
  int32_t device;  // of the indices; -1: the host
  TransferSide src;
  TransferSide dst;
  int64_t num_parts;  // 2: K and V
  int64_t num_layers;
  int64_t num_heads;    // pieces of an item that lie apart; 1 but in page-head layouts
  int64_t chunk_bytes;  // of such a piece
  // Upper bounds of what a GPU may be kept busy with.
  int64_t block_quota;
  int64_t num_warps_per_block;
};

// Direct forms: what is copied for each token, once for each layer of K and of V.
struct TransferRow {
  const char* src;  // of token 0
  char* dst;
  int64_t bytes;
  TokenStrides src_strides;
  TokenStrides dst_strides;
};

struct DirectTransferParams {
  const char* op;
  const int64_t* src_indices;  // [num_items]
  const int64_t* dst_indices;  // [num_items]
  int64_t num_items;
  int32_t src_indices_device;  // -1: the host
  int32_t dst_indices_device;
  int32_t device;  // of dst, or of src if dst is on the host; -1: both are
  TokenGrid src;
  TokenGrid dst;
  std::vector<TransferRow> rows;
};

// Rows src_starts[i], src_starts[i] + 1, ... of src go to rows dst_starts[i], ... of dst.
struct EmbeddingRangesParams {
  const char* op;
  TransferRow row;            // pages of one row
  const int64_t* src_starts;  // [num_ranges], within src
  const int64_t* dst_starts;  // [num_ranges], within dst
  const int64_t* lengths;     // [num_ranges]
  int64_t num_ranges;
  int32_t device;  // of dst, or of src if dst is on the host; -1: both are
};

}  // namespace kvops
