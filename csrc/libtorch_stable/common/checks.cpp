// Host-side checks of tensor arguments. See checks.h.
// Called by every validate.cpp. Nothing here writes to a tensor.
// Shims are asked for codes and sizes only, so no libtorch error text can be lost on torch 2.10.
#include "common/checks.h"

#include <sstream>
#include <stdexcept>

namespace kvops {
namespace {

struct KnownDType {
  int32_t (*code)();
  DType dtype;
  const char* name;
};

// Names for messages; DType::kOther are the ones no operator takes.
constexpr KnownDType kKnownDTypes[] = {
    {aoti_torch_dtype_bfloat16, DType::kBFloat16, "bfloat16"},
    {aoti_torch_dtype_float16, DType::kHalf, "float16"},
    {aoti_torch_dtype_float32, DType::kFloat, "float32"},
    {aoti_torch_dtype_uint8, DType::kUInt8, "uint8"},
    {aoti_torch_dtype_int32, DType::kInt32, "int32"},
    {aoti_torch_dtype_int64, DType::kInt64, "int64"},
    {aoti_torch_dtype_float8_e4m3fn, DType::kFloat8E4m3fn, "float8_e4m3fn"},
    {aoti_torch_dtype_float8_e5m2, DType::kFloat8E5m2, "float8_e5m2"},
    {aoti_torch_dtype_float64, DType::kOther, "float64"},
    {aoti_torch_dtype_int8, DType::kOther, "int8"},
    {aoti_torch_dtype_int16, DType::kOther, "int16"},
    {aoti_torch_dtype_uint16, DType::kOther, "uint16"},
    {aoti_torch_dtype_uint32, DType::kOther, "uint32"},
    {aoti_torch_dtype_uint64, DType::kOther, "uint64"},
    {aoti_torch_dtype_bool, DType::kOther, "bool"},
    {aoti_torch_dtype_complex32, DType::kOther, "complex32"},
    {aoti_torch_dtype_complex64, DType::kOther, "complex64"},
    {aoti_torch_dtype_complex128, DType::kOther, "complex128"},
    {aoti_torch_dtype_float8_e4m3fnuz, DType::kOther, "float8_e4m3fnuz"},
    {aoti_torch_dtype_float8_e5m2fnuz, DType::kOther, "float8_e5m2fnuz"},
};

// Codes are small numbers and the same for the life of torch: asked for when the
// library is loaded, looked up then.
struct KnownCodes {
  static constexpr int32_t kCodes = 128;
  const KnownDType* by_code[kCodes] = {};
  int64_t element_bytes[kCodes] = {};

  KnownCodes() {
    for (const KnownDType& known : kKnownDTypes) {
      const int32_t code = known.code();
      if (code < 0 || code >= kCodes) continue;
      by_code[code] = &known;
      element_bytes[code] = static_cast<int64_t>(aoti_torch_dtype_element_size(code));
    }
  }
};

const KnownCodes kKnownCodes;
const int32_t kCpu = aoti_torch_device_type_cpu();

const KnownDType* known_dtype(const Tensor& tensor) {
  const int32_t code = tensor.dtype_code();
  return code >= 0 && code < KnownCodes::kCodes ? kKnownCodes.by_code[code] : nullptr;
}

int64_t element_bytes(const Tensor& tensor) {
  return known_dtype(tensor) != nullptr ? kKnownCodes.element_bytes[tensor.dtype_code()]
                                        : static_cast<int64_t>(tensor.element_size());
}

std::string list_text(const int64_t* values, int64_t count) {
  std::ostringstream text;
  text << '[';
  for (int64_t i = 0; i < count; ++i) {
    if (i) text << ", ";
    if (values[i] == kAnySize) {
      text << '*';
    } else {
      text << values[i];
    }
  }
  text << ']';
  return text.str();
}

// Passed where a tensor belongs; torch makes an undefined tensor with sizes [0] of it.
bool is_none(const Tensor& tensor) {
  bool defined = true;
  aoti_torch_is_defined(tensor.get(), &defined);
  return !defined;
}

std::string device_text(const Tensor& tensor) {
  if (is_none(tensor)) return "None";
  const int32_t type = tensor.device_type();
  if (type == kCpu) return "cpu";
  if (type == aoti_torch_device_type_meta()) return "meta";
  std::ostringstream text;
  if (type == aoti_torch_device_type_cuda()) {
    text << "cuda";
  } else {
    text << "device type " << type;
  }
  text << ':' << tensor.get_device_index();
  return text.str();
}

// The CPU has one index, whatever a tensor says.
struct Device {
  int32_t type;
  int32_t index;

  bool operator==(const Device&) const = default;
};

Device device_of(const Tensor& tensor) {
  const int32_t type = tensor.device_type();
  return {type, type == kCpu ? 0 : tensor.get_device_index()};
}

// Number of elements from the first to one past the last that sizes and strides reach.
int64_t span_elems(const Tensor& tensor) {
  int64_t last = 0;
  const int64_t* sizes = tensor.sizes();
  const int64_t* strides = tensor.strides();
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (sizes[i] == 0) return 0;
    last += (sizes[i] - 1) * strides[i];
  }
  return last + 1;
}

// Returns whether there is any element.
bool check_storage(const Tensor& tensor, Arg arg) {
  const int64_t span = span_elems(tensor);
  if (span == 0) {
    if (is_none(tensor)) fail(arg, "must be a tensor, got None");
    return false;
  }
  const int64_t storage_bytes = tensor.storage_bytes();
  const int64_t needed_bytes = (tensor.storage_offset() + span) * element_bytes(tensor);
  if (needed_bytes > storage_bytes) {
    fail(arg, "must have a storage of at least " + std::to_string(needed_bytes) + " bytes, got " +
                  std::to_string(storage_bytes) + " (freed or resized)");
  }
  return true;
}

// An expanded tensor has one place for many elements: the last of many writes would win.
void check_not_expanded(const Tensor& tensor, Arg arg) {
  const int64_t* sizes = tensor.sizes();
  const int64_t* strides = tensor.strides();
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (sizes[i] > 1 && strides[i] == 0) {
      fail(arg, "must have memory for each element, as it is written, got stride 0 in dimension " +
                    std::to_string(i) + " of shape " + shape_text(tensor));
    }
  }
}

std::string names(std::initializer_list<DType> dtypes) {
  std::string text;
  for (DType dtype : dtypes) {
    if (!text.empty()) text += ", ";
    text += dtype_name(dtype);
  }
  return text;
}

bool contains(std::initializer_list<CacheKind> kinds, CacheKind kind) {
  for (CacheKind k : kinds) {
    if (k == kind) return true;
  }
  return false;
}

struct CacheKindName {
  const char* text;
  CacheKind kind;
};
constexpr CacheKindName kCacheKindNames[] = {
    {"auto", CacheKind::kAuto},           {"float16", CacheKind::kAuto},
    {"bfloat16", CacheKind::kAuto},       {"fp8", CacheKind::kFp8E4m3},
    {"fp8_e4m3", CacheKind::kFp8E4m3},    {"fp8_e5m2", CacheKind::kFp8E5m2},
    {"fp8_ds_mla", CacheKind::kFp8DsMla}, {"fp8_ds_mla_pow2", CacheKind::kFp8DsMlaPow2},
    {"nvfp4", CacheKind::kNvfp4},         {"nvfp4_linear", CacheKind::kNvfp4Linear},
};

}  // namespace

void fail(Arg arg, const std::string& what) {
  throw std::runtime_error(std::string("kvops::") + arg.op + ": " + arg.name + " " + what);
}

DType dtype_of(const Tensor& tensor) {
  const KnownDType* known = known_dtype(tensor);
  return known ? known->dtype : DType::kOther;
}

int64_t element_bytes(DType dtype) {
  switch (dtype) {
    case DType::kInt64:
      return 8;
    case DType::kFloat:
    case DType::kInt32:
      return 4;
    case DType::kHalf:
    case DType::kBFloat16:
      return 2;
    default:
      return 1;
  }
}

std::string dtype_name(const Tensor& tensor) {
  if (is_none(tensor)) return "None";
  const KnownDType* known = known_dtype(tensor);
  return known ? known->name : "a dtype with code " + std::to_string(tensor.dtype_code());
}

const char* dtype_name(DType dtype) {
  for (const KnownDType& known : kKnownDTypes) {
    if (known.dtype == dtype) return known.name;
  }
  return "unknown";
}

std::string shape_text(const Tensor& tensor) {
  return is_none(tensor) ? "None" : list_text(tensor.sizes(), tensor.dim());
}

void refuse_dim(const Tensor& tensor, Arg arg, int64_t rank) {
  fail(arg, "must have " + std::to_string(rank) + " dimensions, got shape " + shape_text(tensor));
}

void refuse_stride(const Tensor& tensor, Arg arg, int64_t dim, int64_t stride_elems) {
  fail(arg, "must have stride " + std::to_string(stride_elems) + " in dimension " +
                std::to_string(dim) + ", got " + std::to_string(tensor.stride(dim)));
}

void check_shape(const Tensor& tensor, Arg arg, std::initializer_list<int64_t> sizes) {
  const int64_t rank = static_cast<int64_t>(sizes.size());
  bool equal = tensor.dim() == rank;
  const int64_t* got = tensor.sizes();
  for (int64_t i = 0; equal && i < rank; ++i) {
    const int64_t expected = sizes.begin()[i];
    equal = expected == kAnySize || got[i] == expected;
  }
  if (!equal) {
    fail(arg, "must have shape " + list_text(sizes.begin(), rank) + ", got " + shape_text(tensor));
  }
}

void refuse_dtype(const Tensor& tensor, Arg arg, std::initializer_list<DType> allowed) {
  const char* quantifier = allowed.size() > 1 ? "one of " : "";
  fail(arg, std::string("must have dtype ") + quantifier + names(allowed) + ", got " +
                dtype_name(tensor));
}

void check_dense_from(const Tensor& tensor, Arg arg, int64_t dim) {
  const int64_t* sizes = tensor.sizes();
  const int64_t* strides = tensor.strides();
  int64_t expected = 1;
  for (int64_t i = tensor.dim() - 1; i >= dim; --i) {
    if (sizes[i] > 1 && strides[i] != expected) refuse_stride(tensor, arg, i, expected);
    expected *= sizes[i];
  }
}

void check_same_device(const char* op, std::initializer_list<NamedTensor> tensors) {
  const NamedTensor& first = *tensors.begin();
  const Device expected = device_of(first.tensor);
  for (const NamedTensor& other : tensors) {
    if (&other != &first && device_of(other.tensor) != expected) {
      fail({op, other.name}, "must be on " + device_text(first.tensor) + " like " + first.name +
                                 ", got " + device_text(other.tensor));
    }
  }
}

const void* readable(const Tensor& tensor, Arg arg) {
  check_storage(tensor, arg);
  return tensor.const_data_ptr();
}

void* writable(const Tensor& tensor, Arg arg) {
  if (check_storage(tensor, arg)) check_not_expanded(tensor, arg);
  return tensor.mutable_data_ptr();
}

const int32_t* readable_int32(const Tensor& tensor, Arg arg) {
  check_dtype(tensor, arg, {DType::kInt32});
  if (tensor.dim() > 0) check_stride(tensor, arg, tensor.dim() - 1, 1);
  return static_cast<const int32_t*>(readable(tensor, arg));
}

const int64_t* readable_int64(const Tensor& tensor, Arg arg) {
  check_dtype(tensor, arg, {DType::kInt64});
  if (tensor.dim() > 0) check_stride(tensor, arg, tensor.dim() - 1, 1);
  return static_cast<const int64_t*>(readable(tensor, arg));
}

CacheKind parse_cache_kind(const std::string& text, const char* op,
                           std::initializer_list<CacheKind> allowed) {
  for (const CacheKindName& name : kCacheKindNames) {
    if (text == name.text && contains(allowed, name.kind)) return name.kind;
  }
  std::string expected;
  for (const CacheKindName& name : kCacheKindNames) {
    if (!contains(allowed, name.kind)) continue;
    expected += std::string(expected.empty() ? "" : ", ") + name.text;
  }
  fail({op, "kv_cache_dtype"}, "must be one of " + expected + "; got '" + text + "'");
}

void check_cache_dtype(const Tensor& cache, Arg arg, CacheKind kind, DType data_dtype) {
  switch (kind) {
    case CacheKind::kAuto:
      check_dtype(cache, arg, {data_dtype});
      break;
    case CacheKind::kFp8E4m3:
      check_dtype(cache, arg, {DType::kUInt8, DType::kFloat8E4m3fn});
      break;
    case CacheKind::kFp8E5m2:
      check_dtype(cache, arg, {DType::kUInt8, DType::kFloat8E5m2});
      break;
    case CacheKind::kFp8DsMla:
    case CacheKind::kFp8DsMlaPow2:
      check_dtype(cache, arg, {DType::kUInt8, DType::kFloat8E4m3fn, DType::kFloat8E5m2});
      break;
    case CacheKind::kNvfp4:
    case CacheKind::kNvfp4Linear:
      check_dtype(cache, arg, {DType::kUInt8});
      break;
  }
}

const float* readable_scale(const Tensor& scale, Arg arg, int64_t numel) {
  check_dtype(scale, arg, {DType::kFloat});
  if (scale.numel() != numel) {
    fail(arg, "must have " + std::to_string(numel) + " element(s), got shape " + shape_text(scale));
  }
  check_dense_from(scale, arg, 0);
  return static_cast<const float*>(readable(scale, arg));
}

}  // namespace kvops
