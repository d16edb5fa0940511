// Writes tokens into nvfp4 pages on CPU: per head the data in place, the scales by way of a buffer,
// since those of values may be scattered over a tile. See nvfp4.h.
// Tokens of a page share bytes' neighbourhood, never bytes: threads need no order.
#include "cache/cpu/nvfp4.h"

#include <cstring>

#include "cache/cpu/kernels.h"
#include "cache/cpu/plan.h"
#include "cache/nvfp4.h"
#include "common/parallel.h"

namespace kvops::cpu {
namespace {

constexpr int64_t kGrainElems = 32768;
constexpr int64_t kBufferGroups = 64;

Nvfp4Quantization quantization_of(DType dtype) {
  const Nvfp4Kernels& kernels = nvfp4_kernels();
  if (dtype == DType::kHalf) return kernels.quantize_half;
  return dtype == DType::kFloat ? kernels.quantize_float : kernels.quantize_bfloat16;
}

// One head of one token, which lies at `offset` of the page that starts at `page`.
struct Place {
  uint8_t* page;
  int64_t offset;
  int64_t head;
};

// Stores the scales of groups [first, first + count) of a head.
void store_scales(const Nvfp4Side& s, const Place& place, int64_t first, int64_t count,
                  const uint8_t* scales) noexcept {
  uint8_t* of_head = place.page + s.scales_start + place.head * s.scales_head_stride;
  if (!s.scales_in_tiles) {
    std::memcpy(of_head + place.offset * s.scales_offset_stride + first, scales,
                static_cast<size_t>(count));
    return;
  }
  const int64_t quarter_groups = s.head_size / kNvfp4GroupElems / 4;
  for (int64_t group = first, i = 0; i < count; ++group, ++i) {
    const Nvfp4Place tiled =
        nvfp4_tiled_place(place.offset, group / quarter_groups, group % quarter_groups);
    of_head[tiled.offset * s.scales_offset_stride + tiled.group] = scales[i];
  }
}

void write_head(const Nvfp4Side& s, Nvfp4Quantization quantize, int64_t src_bytes, const char* src,
                const Place& place) noexcept {
  const float global_factor = nvfp4_global_factor(*s.scale);
  const int64_t groups = s.head_size / kNvfp4GroupElems;
  uint8_t* data =
      place.page + place.offset * s.data_offset_stride + place.head * s.data_head_stride;
  uint8_t scales[kBufferGroups];
  for (int64_t first = 0; first < groups; first += kBufferGroups) {
    const int64_t count = smaller(kBufferGroups, groups - first);
    quantize(src + first * kNvfp4GroupElems * src_bytes, count, global_factor,
             data + first * kNvfp4GroupBytes, scales);
    store_scales(s, place, first, count, scales);
  }
}

}  // namespace

void write_nvfp4_pages(const Nvfp4WriterParams& p) {
  const Nvfp4Quantization quantize = quantization_of(p.dtype);
  const int64_t src_bytes = element_bytes_of(p.dtype);
  const int64_t token_elems = p.heads * (p.key.head_size + p.value.head_size);
  parallel_for(
      p.tokens, 1 + kGrainElems / (token_elems + 1), [&](int64_t begin, int64_t end) noexcept {
        for (int64_t token = begin; token < end; ++token) {
          const int64_t slot = p.slot_mapping[token];
          if (slot < 0 || slot >= p.num_slots) continue;
          for (const Nvfp4Side* s : {&p.key, &p.value}) {
            Place place{s->cache + slot / p.block_size * s->block_stride, slot % p.block_size, 0};
            for (; place.head < p.heads; ++place.head) {
              const int64_t first = token * s->src_token_stride + place.head * s->src_head_stride;
              write_head(*s, quantize, src_bytes, s->src + first * src_bytes, place);
            }
          }
        }
      });
}

}  // namespace kvops::cpu
