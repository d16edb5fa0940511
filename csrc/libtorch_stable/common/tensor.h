// A tensor argument of an operator: owns torch's handle and asks for shape, strides and dtype once.
// Made when a call is unboxed (registration/boxed.h), read by validation; kernels never see it.
// Instead of torch::stable::Tensor, which shares its handle and calls torch for every size.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "common/stable.h"

namespace kvops {

class Tensor {
 public:
  // Takes the handle over.
  explicit Tensor(AtenTensorHandle handle) : handle_(handle) {}
  Tensor(Tensor&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)),
        dim_(other.dim_),
        sizes_(other.sizes_),
        strides_(other.strides_),
        dtype_code_(other.dtype_code_) {}
  Tensor& operator=(Tensor&&) = delete;
  ~Tensor() {
    if (handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
  }

  AtenTensorHandle get() const { return handle_; }

  // What may be undefined (an unused scale, passed as None) is not asked before it is needed.
  int64_t dim() const {
    if (sizes_ == nullptr) read_sizes();
    return dim_;
  }
  const int64_t* sizes() const {
    if (sizes_ == nullptr) read_sizes();
    return sizes_;
  }
  const int64_t* strides() const {
    if (strides_ == nullptr) read_strides();
    return strides_;
  }
  int64_t size(int64_t i) const { return sizes()[checked(i)]; }
  int64_t stride(int64_t i) const { return strides()[checked(i)]; }

  int64_t numel() const { return ask<int64_t>(aoti_torch_get_numel); }
  int64_t storage_offset() const { return ask<int64_t>(aoti_torch_get_storage_offset); }
  int64_t storage_bytes() const { return ask<int64_t>(aoti_torch_get_storage_size); }
  int32_t dtype_code() const {
    if (dtype_code_ < 0) dtype_code_ = ask<int32_t>(aoti_torch_get_dtype);
    return dtype_code_;
  }
  size_t element_size() const { return aoti_torch_dtype_element_size(dtype_code()); }
  // An undefined tensor is on no device: 0, the CPU, and refused for its shape or dtype.
  int32_t device_type() const {
    int32_t type = 0;
    aoti_torch_get_device_type(handle_, &type);
    return type;
  }
  bool is_cpu() const { return device_type() == aoti_torch_device_type_cpu(); }
  bool is_cuda() const { return device_type() == aoti_torch_device_type_cuda(); }
  int32_t get_device_index() const { return ask<int32_t>(aoti_torch_get_device_index); }
  const void* const_data_ptr() const { return ask<const void*>(torch_get_const_data_ptr); }
  void* mutable_data_ptr() const { return ask<void*>(torch_get_mutable_data_ptr); }

 private:
  template <class Value>
  Value ask(AOTITorchError (*shim)(AtenTensorHandle, Value*)) const {
    Value value{};
    TORCH_ERROR_CODE_CHECK(shim(handle_, &value));
    return value;
  }

  void read_sizes() const;
  void read_strides() const;
  [[noreturn]] void refuse_dimension(int64_t i) const;

  int64_t checked(int64_t i) const {
    if (i < 0 || i >= dim()) refuse_dimension(i);
    return i;
  }

  AtenTensorHandle handle_;
  mutable int64_t dim_ = 0;
  // Memory of the tensor; null: not asked for yet.
  mutable int64_t* sizes_ = nullptr;
  mutable int64_t* strides_ = nullptr;
  mutable int32_t dtype_code_ = -1;  // negative: not asked for yet
};

using OptionalTensor = std::optional<Tensor>;

}  // namespace kvops
