// Contract of convert_fp8 (spec 5.4; wider than vLLM: any strides, not only equal dense ones).
// Called by cpu::convert_fp8 and cuda::convert_fp8.
// Dimensions are sorted and merged here, so that a kernel sees one row wherever layouts agree.
#include <algorithm>
#include <vector>

#include "cache/validate.h"
#include "common/checks.h"

namespace kvops {
namespace {

constexpr const char* kOp = "convert_fp8";
constexpr Arg kDst{kOp, "dst_cache"};
constexpr Arg kSrc{kOp, "src_cache"};

void check_same_shape(const Tensor& dst, const Tensor& src) {
  bool equal = dst.dim() == src.dim();
  for (int64_t i = 0; equal && i < dst.dim(); ++i) equal = dst.size(i) == src.size(i);
  if (!equal) {
    fail(kDst, "must have the shape of src_cache, " + shape_text(src) + ", got " + shape_text(dst));
  }
}

// The dtypes say the direction: one side floating-point, the other bytes.
void check_dtypes(const Tensor& dst, const Tensor& src, ConvertFp8Params& p) {
  p.store = is_floating(dtype_of(src));
  if (p.store) {
    check_dtype(dst, kDst, {DType::kUInt8, DType::kFloat8E4m3fn});
    p.dtype = dtype_of(src);
  } else {
    check_dtype(
        src, kSrc,
        {DType::kUInt8, DType::kFloat8E4m3fn, DType::kHalf, DType::kBFloat16, DType::kFloat});
    p.dtype = check_dtype(dst, kDst, {DType::kHalf, DType::kBFloat16, DType::kFloat});
  }
}

struct Dim {
  int64_t size;
  int64_t dst_stride;
  int64_t src_stride;
};

void append(ConvertFp8Params& p, const Dim& dim) {
  if (p.dims == kMaxMergedDims) {
    fail(kDst, "must have at most " + std::to_string(kMaxMergedDims) +
                   " dimensions that src_cache lays out differently, got more");
  }
  p.sizes[p.dims] = dim.size;
  p.dst_strides[p.dims] = dim.dst_stride;
  p.src_strides[p.dims] = dim.src_stride;
  ++p.dims;
}

// Outermost first by dst's strides; neighbours that are one run in both tensors become one.
void merge_dims(const Tensor& dst, const Tensor& src, ConvertFp8Params& p) {
  std::vector<Dim> dims;
  for (int64_t i = 0; i < dst.dim(); ++i) {
    if (dst.size(i) != 1) dims.push_back({dst.size(i), dst.stride(i), src.stride(i)});
  }
  std::stable_sort(dims.begin(), dims.end(),
                   [](const Dim& a, const Dim& b) { return a.dst_stride > b.dst_stride; });
  Dim outer{1, 0, 0};
  for (const Dim& inner : dims) {
    const bool one_run = outer.dst_stride == inner.size * inner.dst_stride &&
                         outer.src_stride == inner.size * inner.src_stride;
    if (outer.size == 1 || one_run) {
      outer = {outer.size * inner.size, inner.dst_stride, inner.src_stride};
    } else {
      append(p, outer);
      outer = inner;
    }
  }
  append(p, outer);
}

}  // namespace

ConvertFp8Params validate_convert_fp8(const Tensor& dst_cache, const Tensor& src_cache,
                                      double scale, const std::string& kv_cache_dtype) {
  parse_cache_kind(kv_cache_dtype, kOp, {CacheKind::kFp8E4m3});
  check_same_device(kOp, {{dst_cache, "dst_cache"}, {src_cache, "src_cache"}});
  check_same_shape(dst_cache, src_cache);
  ConvertFp8Params p{};
  check_dtypes(dst_cache, src_cache, p);
  merge_dims(dst_cache, src_cache, p);
  p.dst = static_cast<char*>(writable(dst_cache, kDst));
  p.src = static_cast<const char*>(readable(src_cache, kSrc));
  p.scale = static_cast<float>(scale);
  return p;
}

}  // namespace kvops
