// Quantises groups of 16 elements to nvfp4, by the expressions of cache/nvfp4.h.
// Called by reshape_and_cache_flash through nvfp4_kernels().
// Blocks of fixed size, in steps that the compiler vectorises at every SIMD level.
#include "cache/nvfp4.h"

#include <cstddef>

#include "cache/cpu/kernels.h"
#include "cache/cpu/kernels/widen_block.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

// Groups quantised together: their scales take one division each, side by side.
constexpr int64_t kBatchGroups = 8;
constexpr int64_t kBatchElems = kBatchGroups * kNvfp4GroupElems;
constexpr int64_t kBatchBytes = kBatchGroups * kNvfp4GroupBytes;

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

// In steps, because a loop over elements of one size vectorises best.
inline void quantize_wide(const float* __restrict in, float global_factor, uint8_t* __restrict data,
                          uint8_t* __restrict scales) {
  float amax[kBatchGroups];
  for (int64_t g = 0; g < kBatchGroups; ++g) amax[g] = group_amax(in + g * kNvfp4GroupElems);
  e4m3_t group_scales[kBatchGroups];
  for (int64_t g = 0; g < kBatchGroups; ++g) {
    group_scales[g] = from_float<e4m3_t>(nvfp4_group_scale(amax[g], global_factor));
  }
  const float inverse_factor = 1.0f / global_factor;
  float multipliers[kBatchGroups];
  for (int64_t g = 0; g < kBatchGroups; ++g) {
    multipliers[g] = nvfp4_multiplier(to_float(group_scales[g]), inverse_factor);
  }
  __builtin_memcpy(scales, group_scales, sizeof(group_scales));
  uint32_t codes[kBatchElems];
  for (int64_t g = 0; g < kBatchGroups; ++g) {
    const int64_t first = g * kNvfp4GroupElems;
    for (int64_t i = first; i < first + kNvfp4GroupElems; ++i) {
      codes[i] = encode_e2m1(in[i] * multipliers[g]);
    }
  }
  // As bytes, two neighbours are the halves of a word, and meet in its low byte.
  uint8_t nibbles[kBatchElems];
  for (int64_t i = 0; i < kBatchElems; ++i) nibbles[i] = static_cast<uint8_t>(codes[i]);
  uint16_t pairs[kBatchBytes];
  __builtin_memcpy(pairs, nibbles, sizeof(pairs));
  for (int64_t i = 0; i < kBatchBytes; ++i) {
    data[i] = static_cast<uint8_t>(pairs[i] | pairs[i] >> 4);
  }
}

template <class T>
inline void quantize_batch(const T* in, float global_factor, uint8_t* data, uint8_t* scales) {
  float wide[kBatchElems];
  for (int64_t i = 0; i < kBatchElems; i += kBlockElems) widen_block(in + i, wide + i);
  quantize_wide(wide, global_factor, data, scales);
}

template <class T>
void quantize_groups(const void* src, int64_t groups, float global_factor, uint8_t* data,
                     uint8_t* scales) {
  const T* in = static_cast<const T*>(src);
  for (; groups >= kBatchGroups; groups -= kBatchGroups) {
    quantize_batch(in, global_factor, data, scales);
    in += kBatchElems;
    data += kBatchBytes;
    scales += kBatchGroups;
  }
  if (groups == 0) return;
  T padded[kBatchElems] = {};
  uint8_t batch[kBatchBytes];
  uint8_t batch_scales[kBatchGroups];
  __builtin_memcpy(padded, in, static_cast<size_t>(groups * kNvfp4GroupElems) * sizeof(T));
  quantize_batch(padded, global_factor, batch, batch_scales);
  __builtin_memcpy(data, batch, static_cast<size_t>(groups * kNvfp4GroupBytes));
  __builtin_memcpy(scales, batch_scales, static_cast<size_t>(groups));
}

}  // namespace

extern const Nvfp4Kernels nvfp4_kernels_table;
const Nvfp4Kernels nvfp4_kernels_table{
    .quantize_half = quantize_groups<half_t>,
    .quantize_bfloat16 = quantize_groups<bfloat16_t>,
    .quantize_float = quantize_groups<float>,
};

}  // namespace kvops::cpu::KVOPS_ISA
