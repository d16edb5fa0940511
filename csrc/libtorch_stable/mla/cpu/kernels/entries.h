// Where a token's MLA entry lies in the cache, and the plain kinds of entry: [kv_c | k_pe].
// Used by write_entries and rope_fused.
// A slot out of range has no entry; nothing else of the token is looked at then.
#pragma once

#include <cstdint>

#include "common/float_convert.h"
#include "common/isa.h"
#include "mla/cpu/kernels/store_row.h"
#include "mla/params.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

inline char* entry_of(const MlaEntriesParams& p, int64_t token) {
  const int64_t slot = p.slot_mapping[token];
  if (slot < 0 || slot >= p.num_slots) return nullptr;
  return p.kv_cache + slot / p.block_size * p.block_stride_bytes +
         slot % p.block_size * p.entry_stride_bytes;
}

template <class In, class Out>
void write_plain_entry(const MlaEntriesParams& p, int64_t token, char* entry) {
  const float scale = p.scale ? *p.scale : 1.0f;
  Out* out = reinterpret_cast<Out*>(entry);
  store_row(static_cast<const In*>(p.kv_c) + token * p.kv_c_stride_elems, p.latent_elems, scale,
            out);
  store_row(static_cast<const In*>(p.k_pe) + token * p.k_pe_stride_elems, p.rope_elems, scale,
            out + p.latent_elems);
}

using EntryWriter = void (*)(const MlaEntriesParams& params, int64_t token, char* entry);

template <class In>
EntryWriter plain_entry_writer(CacheKind kind) {
  switch (kind) {
    case CacheKind::kFp8E4m3:
      return write_plain_entry<In, e4m3_t>;
    case CacheKind::kFp8E5m2:
      return write_plain_entry<In, e5m2_t>;
    default:
      return write_plain_entry<In, In>;
  }
}

// 3 dtypes x 3 kinds = 9 writers.
EntryWriter plain_entry_writer(const MlaEntriesParams& p) {
  switch (p.dtype) {
    case DType::kHalf:
      return plain_entry_writer<half_t>(p.kind);
    case DType::kBFloat16:
      return plain_entry_writer<bfloat16_t>(p.kind);
    default:
      return plain_entry_writer<float>(p.kind);
  }
}

}  // namespace
}  // namespace kvops::cpu::KVOPS_ISA
