// convert_fp8 on CPU: rows of elements that both tensors hold side by side.
// Registered as kvops::convert_fp8 for CPU tensors.
// Where layouts agree, validation has merged everything into one row, which is cut for the threads.
#include "cache/cpu/plan.h"
#include "cache/ops.h"
#include "cache/validate.h"
#include "common/parallel.h"

namespace kvops::cpu {
namespace {

constexpr int64_t kGrainElems = 32768;

struct Walk {
  ConvertFp8Params p;
  RowConversion convert;
  int64_t dst_bytes;  // per element
  int64_t src_bytes;  // per element
};

// Converts the elements [begin, end) of the order that the merged dimensions give.
void convert_range(const Walk& w, int64_t begin, int64_t end) noexcept {
  const ConvertFp8Params& p = w.p;
  const int inner = p.dims - 1;
  const bool rows = p.dst_strides[inner] == 1 && p.src_strides[inner] == 1;
  for (int64_t element = begin; element < end;) {
    int64_t rest = element;
    int64_t dst_offset = 0;
    int64_t src_offset = 0;
    for (int dim = inner; dim >= 0; --dim) {
      dst_offset += rest % p.sizes[dim] * p.dst_strides[dim];
      src_offset += rest % p.sizes[dim] * p.src_strides[dim];
      rest /= p.sizes[dim];
    }
    int64_t count = rows ? p.sizes[inner] - element % p.sizes[inner] : 1;
    if (count > end - element) count = end - element;
    w.convert(p.src + src_offset * w.src_bytes, p.dst + dst_offset * w.dst_bytes, count, p.scale,
              Stores::kCached);
    element += count;
  }
}

}  // namespace

void convert_fp8(Tensor& dst_cache, const Tensor& src_cache, double scale,
                 const std::string& kv_cache_dtype) {
  const ConvertFp8Params p = validate_convert_fp8(dst_cache, src_cache, scale, kv_cache_dtype);
  const Walk walk{
      .p = p,
      .convert =
          p.store ? store_conversion(p.dtype, CacheKind::kFp8E4m3) : load_conversion(p.dtype),
      .dst_bytes = p.store ? 1 : element_bytes_of(p.dtype),
      .src_bytes = p.store ? element_bytes_of(p.dtype) : 1,
  };
  parallel_for(src_cache.numel(), kGrainElems,
               [&walk](int64_t begin, int64_t end) noexcept { convert_range(walk, begin, end); });
}

}  // namespace kvops::cpu
