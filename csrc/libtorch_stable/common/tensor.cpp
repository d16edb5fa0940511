// What is not done in every call of a Tensor's member functions. See tensor.h.
// Compiled into both libraries.
#include "common/tensor.h"

#include <stdexcept>
#include <string>

namespace kvops {

void Tensor::read_sizes() const {
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(handle_, &dim_));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(handle_, &sizes_));
}

void Tensor::read_strides() const {
  // None has the sizes [0] and, for torch, no strides: any will do until it is refused.
  static int64_t none_strides[] = {1};
  bool defined = true;
  if (dim() == 1 && sizes_[0] == 0) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_is_defined(handle_, &defined));
  }
  if (!defined) {
    strides_ = none_strides;
    return;
  }
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(handle_, &strides_));
}

void Tensor::refuse_dimension(int64_t i) const {
  throw std::runtime_error("kvops: a tensor with " + std::to_string(dim()) +
                           " dimensions has no dimension " + std::to_string(i));
}

}  // namespace kvops
