// Turns a typed operator into the boxed function that torch calls: takes every argument off torch's
// stack, calls the operator, puts its result there. One instance for each line of a kernel list.
// Instead of TORCH_BOX, which allocates for each tensor and string that it takes.
#pragma once

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/stable.h"
#include "common/tensor.h"

namespace kvops {

// One argument, owned for the time of the call. What torch passes as a handle, it passes as it is.
template <class T>
struct Unboxed {
  Unboxed(StableIValue boxed) : value(torch::stable::detail::to<T>(boxed)) {}
  T value;
};

template <>
struct Unboxed<Tensor> {
  Unboxed(StableIValue boxed) : value(std::bit_cast<AtenTensorHandle>(boxed)) {}
  Tensor value;
};

template <>
struct Unboxed<OptionalTensor> {
  Unboxed(StableIValue boxed) {
    const auto handle = torch::stable::detail::to<std::optional<AtenTensorHandle>>(boxed);
    if (handle) value.emplace(*handle);
  }
  OptionalTensor value;
};

// A list of tensors; torch's list is deleted whatever happens.
template <>
struct Unboxed<std::vector<Tensor>> {
  Unboxed(StableIValue boxed) {
    const List list{torch::stable::detail::to<StableListHandle>(boxed)};
    size_t size = 0;
    TORCH_ERROR_CODE_CHECK(torch_list_size(list.handle, &size));
    value.reserve(size);
    for (size_t i = 0; i < size; ++i) {
      StableIValue entry = 0;
      TORCH_ERROR_CODE_CHECK(torch_list_get_item(list.handle, i, &entry));
      value.emplace_back(torch::stable::detail::to<AtenTensorHandle>(entry));
    }
  }
  std::vector<Tensor> value;

 private:
  struct List {
    StableListHandle handle;
    ~List() { torch_delete_list(handle); }
  };
};

template <>
struct Unboxed<std::string> {
  Unboxed(StableIValue boxed) {
    const auto handle = std::bit_cast<StringHandle>(boxed);
    size_t length = 0;
    const char* text = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_string_length(handle, &length));
    TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &text));
    value.assign(text, length);
    TORCH_ERROR_CODE_CHECK(torch_delete_string(handle));
  }
  std::string value;
};

template <auto* kOperator, class Type = std::remove_pointer_t<decltype(kOperator)>>
struct Boxed;

template <auto* kOperator, class Result, class... Parameters>
struct Boxed<kOperator, Result(Parameters...)> {
  static void call(StableIValue* stack, uint64_t num_arguments, uint64_t num_results) {
    if (num_arguments != sizeof...(Parameters) || num_results != !std::is_void_v<Result>) {
      throw std::runtime_error("kvops: an operator is registered with a schema of another one");
    }
    call_with(stack, std::index_sequence_for<Parameters...>{});
  }

 private:
  template <size_t... kIndex>
  static void call_with(StableIValue* stack, std::index_sequence<kIndex...>) {
    std::tuple<Unboxed<std::remove_cvref_t<Parameters>>...> unboxed{stack[kIndex]...};
    if constexpr (std::is_void_v<Result>) {
      kOperator(std::get<kIndex>(unboxed).value...);
    } else {
      stack[0] = torch::stable::detail::from(kOperator(std::get<kIndex>(unboxed).value...));
    }
  }
};

template <auto* kOperator>
inline constexpr auto* boxed = &Boxed<kOperator>::call;

}  // namespace kvops
