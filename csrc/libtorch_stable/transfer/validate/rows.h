// Checks that the direct forms share: one end of a row of tokens, and what two ends must agree in.
// Called by transfer/validate/direct.cpp and embedding_ranges.cpp only.
#pragma once

#include <charconv>
#include <cstdint>

#include "common/checks.h"
#include "transfer/params.h"
#include "transfer/validate/access.h"

namespace kvops {

// "src_layers[12]", made without an allocation: lists may have hundreds of entries.
class EntryName {
 public:
  EntryName(const char* list, size_t index) {
    char* at = text_;
    while (*list != '\0' && at < text_ + kMostLetters) *at++ = *list++;
    *at++ = '[';
    at = std::to_chars(at, text_ + sizeof(text_) - 2, index).ptr;
    *at++ = ']';
    *at = '\0';
  }
  const char* c_str() const { return text_; }

 private:
  static constexpr int kMostLetters = 32;
  char text_[kMostLetters + 24];
};

// Where the tokens of one layer are, in a tensor of that layer or in a pool of all layers.
struct RowEnd {
  const Tensor& tensor;
  const char* name;
  int64_t offset_bytes;  // of token 0, from the tensor's first element
  int64_t item_elems;
  TokenStrides strides;
};

// [tokens, *item]: dense items, any stride of tokens; items of what is written do not overlap.
RowEnd layer_end(const char* op, const Tensor& tensor, const char* name, Access access);
// [pages, layers, page_size, *item], with a layer's page dense.
RowEnd pool_end(const char* op, const Tensor& tensor, const char* name, int64_t layer,
                Access access);

// Bytes are copied, so the dtypes must be equal, but may be any.
TransferRow row_between(const char* op, const RowEnd& src, const RowEnd& dst);

// -1: the host
int32_t device_index(const Tensor& tensor);
// dst's, or src's if dst is on the host. Not two GPUs: their streams would need an order.
int32_t device_of_copies(const char* op, const NamedTensor& src, const NamedTensor& dst);

}  // namespace kvops
