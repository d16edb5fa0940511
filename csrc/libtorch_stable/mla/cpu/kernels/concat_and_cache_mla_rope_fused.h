// Rotates q_pe and k_pe of a range of tokens in place, then writes their MLA entries.
// Called by cpu::concat_and_cache_mla_rope_fused.
// A token is rotated and written, or, with a bad slot or position, left alone altogether.
#pragma once

#include <cstdint>

#include "mla/cpu/kernels/entries.h"
#include "mla/cpu/kernels/rotate.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

template <class T, bool kNeox>
void rotate_token(const RopeFusedParams& p, int64_t token, int64_t position) {
  const int64_t pairs = p.rot_elems / 2;
  const T* cos = static_cast<const T*>(p.cos_sin) + position * p.cos_sin_stride_elems;
  const T* sin = cos + pairs;
  T* q_pe = static_cast<T*>(p.q_pe) + token * p.q_token_stride_elems;
  T* k_pe = static_cast<T*>(p.k_pe) + token * p.entries.k_pe_stride_elems;
  Chunk cos_sin = {};
  Chunk chunk = {};
  for (int64_t first = 0; first < pairs; first += kChunkPairs) {
    const int64_t count = pairs - first < kChunkPairs ? pairs - first : kChunkPairs;
    widen_row(cos + first, count, cos_sin.x);
    widen_row(sin + first, count, cos_sin.y);
    for (int64_t head = 0; head <= p.heads; ++head) {
      // The key is rotated like one more head.
      T* row = head < p.heads ? q_pe + head * p.q_head_stride_elems : k_pe;
      const RowPairs<T, kNeox> place{row, pairs, first, count};
      load_pairs(place, chunk);
      rotate_chunk(chunk, cos_sin, T{});
      store_pairs(chunk, place);
    }
  }
}

using TokenRotation = void (*)(const RopeFusedParams& params, int64_t token, int64_t position);

// 3 dtypes x 2 kinds of pairs = 6 rotations.
TokenRotation token_rotation(DType dtype, bool is_neox) {
  switch (dtype) {
    case DType::kHalf:
      return is_neox ? rotate_token<half_t, true> : rotate_token<half_t, false>;
    case DType::kBFloat16:
      return is_neox ? rotate_token<bfloat16_t, true> : rotate_token<bfloat16_t, false>;
    default:
      return is_neox ? rotate_token<float, true> : rotate_token<float, false>;
  }
}

void rope_fused(const RopeFusedParams& p, int64_t begin, int64_t end) noexcept {
  const EntryWriter write = plain_entry_writer(p.entries);
  const TokenRotation rotate = token_rotation(p.entries.dtype, p.is_neox);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t position = p.positions[token];
    if (position < 0 || position >= p.max_positions) continue;
    char* entry = entry_of(p.entries, token);
    if (entry == nullptr) continue;
    rotate(p, token, position);
    write(p.entries, token, entry);
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
