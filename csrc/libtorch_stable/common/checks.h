// Host-side checks of tensor arguments; each failure names operator, argument, expected and got.
// Used by every validate.cpp before the first byte is written; throws std::runtime_error only.
// A message reads "kvops::<op>: <arg> must ..., got ...".
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/tensor.h"

namespace kvops {

// An argument of an operator, for messages.
struct Arg {
  const char* op;
  const char* name;
};

inline constexpr int64_t kAnySize = -1;

[[noreturn]] void fail(Arg arg, const std::string& what);

DType dtype_of(const Tensor& tensor);
int64_t element_bytes(DType dtype);
std::string dtype_name(const Tensor& tensor);
const char* dtype_name(DType dtype);
std::string shape_text(const Tensor& tensor);

inline bool is_floating(DType d) {
  return d == DType::kHalf || d == DType::kBFloat16 || d == DType::kFloat;
}
inline bool is_float8(DType d) { return d == DType::kFloat8E4m3fn || d == DType::kFloat8E5m2; }

[[noreturn]] void refuse_dim(const Tensor& tensor, Arg arg, int64_t rank);
inline void check_dim(const Tensor& tensor, Arg arg, int64_t rank) {
  if (tensor.dim() != rank) refuse_dim(tensor, arg, rank);
}
// Sizes that may be anything are kAnySize.
void check_shape(const Tensor& tensor, Arg arg, std::initializer_list<int64_t> sizes);
[[noreturn]] void refuse_dtype(const Tensor& tensor, Arg arg, std::initializer_list<DType> allowed);
inline DType check_dtype(const Tensor& tensor, Arg arg, std::initializer_list<DType> allowed) {
  const DType dtype = dtype_of(tensor);
  for (const DType candidate : allowed) {
    if (candidate == dtype) return dtype;
  }
  refuse_dtype(tensor, arg, allowed);
}
// The stride of one dimension, in elements; dimensions of size <= 1 have no stride to check.
[[noreturn]] void refuse_stride(const Tensor& tensor, Arg arg, int64_t dim, int64_t stride_elems);
inline void check_stride(const Tensor& tensor, Arg arg, int64_t dim, int64_t stride_elems) {
  if (tensor.size(dim) > 1 && tensor.stride(dim) != stride_elems) {
    refuse_stride(tensor, arg, dim, stride_elems);
  }
}
// The dimensions from `dim` on are laid out densely, the last one with stride 1.
void check_dense_from(const Tensor& tensor, Arg arg, int64_t dim);
// Every tensor must be where the first one is.
struct NamedTensor {
  const Tensor& tensor;
  const char* name;
};
void check_same_device(const char* op, std::initializer_list<NamedTensor> tensors);

// A pointer to the tensor's first element, after checking that its storage really holds every
// element that sizes and strides reach (a freed or shrunk storage does not). Null if empty.
const void* readable(const Tensor& tensor, Arg arg);
void* writable(const Tensor& tensor, Arg arg);

// Index tensors: 1-D (or rank as given), contiguous in the last dimension.
const int32_t* readable_int32(const Tensor& tensor, Arg arg);
const int64_t* readable_int64(const Tensor& tensor, Arg arg);

// kv_cache_dtype: "auto", "float16", "bfloat16" are kAuto. `allowed` lists further kinds.
CacheKind parse_cache_kind(const std::string& text, const char* op,
                           std::initializer_list<CacheKind> allowed);
// The dtype that a cache must have: that of the data for kAuto, a 1-byte one for fp8 kinds.
void check_cache_dtype(const Tensor& cache, Arg arg, CacheKind kind, DType data_dtype);
// A float32 scale with `numel` elements (any rank), dense; read only for fp8 kinds.
const float* readable_scale(const Tensor& scale, Arg arg, int64_t numel);

}  // namespace kvops
