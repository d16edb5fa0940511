// Quantises groups of 16 elements to nvfp4, by the expressions of cache/nvfp4.h.
// Called by reshape_and_cache_flash through nvfp4_kernels().
// Blocks of fixed size, in steps that the compiler vectorises at every SIMD level.
#include "cache/nvfp4.h"

#include <cstddef>

#include "cache/cpu/kernels.h"
#include "cache/cpu/kernels/widen_block.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

constexpr int64_t kBlockGroups = kBlockElems / kNvfp4GroupElems;
constexpr int64_t kBlockBytes = kBlockElems / 2;

// Magnitudes order like their bits; NaN does not count.
inline float group_amax(const float* group) {
  int32_t largest = 0;
  for (int64_t i = 0; i < kNvfp4GroupElems; ++i) {
    const int32_t magnitude = static_cast<int32_t>(float_bits(group[i]) & 0x7fffffffu);
    const int32_t number = magnitude > 0x7f800000 ? 0 : magnitude;
    largest = largest > number ? largest : number;
  }
  return bits_float(static_cast<uint32_t>(largest));
}

inline void quantize_block(const float* in, float global_factor, uint8_t* __restrict data,
                           uint8_t* __restrict scales) {
  uint32_t codes[kBlockElems];
  for (int64_t g = 0; g < kBlockGroups; ++g) {
    const float* group = in + g * kNvfp4GroupElems;
    const e4m3_t scale = nvfp4_group_scale(group_amax(group), global_factor);
    const float multiplier = nvfp4_multiplier(scale, global_factor);
    uint32_t* out = codes + g * kNvfp4GroupElems;
    for (int64_t i = 0; i < kNvfp4GroupElems; ++i) out[i] = encode_e2m1(group[i] * multiplier);
    scales[g] = scale.bits;
  }
  for (int64_t i = 0; i < kBlockBytes; ++i) {
    data[i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
  }
}

template <class T>
void quantize_groups(const void* src, int64_t groups, float global_factor, uint8_t* data,
                     uint8_t* scales) {
  const T* in = static_cast<const T*>(src);
  float wide[kBlockElems];
  for (; groups >= kBlockGroups; groups -= kBlockGroups) {
    widen_block(in, wide);
    quantize_block(wide, global_factor, data, scales);
    in += kBlockElems;
    data += kBlockBytes;
    scales += kBlockGroups;
  }
  if (groups == 0) return;
  T padded[kBlockElems] = {};
  uint8_t block[kBlockBytes];
  uint8_t block_scales[kBlockGroups];
  __builtin_memcpy(padded, in, static_cast<size_t>(groups * kNvfp4GroupElems) * sizeof(T));
  widen_block(padded, wide);
  quantize_block(wide, global_factor, block, block_scales);
  __builtin_memcpy(data, block, static_cast<size_t>(groups * kNvfp4GroupBytes));
  __builtin_memcpy(scales, block_scales, static_cast<size_t>(groups));
}

}  // namespace

extern const Nvfp4Kernels nvfp4_kernels_table;
const Nvfp4Kernels nvfp4_kernels_table{
    .quantize_half = quantize_groups<half_t>,
    .quantize_bfloat16 = quantize_groups<bfloat16_t>,
    .quantize_float = quantize_groups<float>,
};

}  // namespace kvops::cpu::KVOPS_ISA
