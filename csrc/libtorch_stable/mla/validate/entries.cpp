// The half of the contract that both writers of MLA entries share. See entries.h.
// kv_cache is addressed in bytes from here on: kernels need not know its element type.
#include "mla/validate/entries.h"

namespace kvops {
namespace {

bool is_ds_mla(CacheKind kind) {
  return kind == CacheKind::kFp8DsMla || kind == CacheKind::kFp8DsMlaPow2;
}

// Widths and dtypes of the 656-byte entry. Other 16-bit inputs would pass by size alone, as in
// vLLM, which then takes the largest bit pattern of a half for its magnitude.
void check_ds_mla(const MlaEntriesArgs& args) {
  check_shape(args.kv_c, {args.op, "kv_c"}, {kAnySize, kDsMlaLatentElems});
  // The newer variant may be written without a rotary part.
  const bool no_rope =
      args.kind == CacheKind::kFp8DsMlaPow2 && args.k_pe.dim() == 2 && args.k_pe.size(1) == 0;
  if (!no_rope) check_shape(args.k_pe, {args.op, "k_pe"}, {kAnySize, kDsMlaRopeElems});
  check_shape(args.kv_cache, {args.op, "kv_cache"}, {kAnySize, kAnySize, kDsMlaEntryBytes});
  check_dtype(args.kv_c, {args.op, "kv_c"}, {DType::kBFloat16});
}

void check_plain(const MlaEntriesArgs& args) {
  check_dim(args.kv_c, {args.op, "kv_c"}, 2);
  check_dim(args.k_pe, {args.op, "k_pe"}, 2);
  const int64_t entry_elems = args.kv_c.size(1) + args.k_pe.size(1);
  check_shape(args.kv_cache, {args.op, "kv_cache"}, {kAnySize, kAnySize, entry_elems});
  check_dtype(args.kv_c, {args.op, "kv_c"}, {DType::kHalf, DType::kBFloat16, DType::kFloat});
}

}  // namespace

void check_rows(const Tensor& tensor, Arg arg, int64_t rows) {
  if (tensor.size(0) < rows) {
    fail(arg, "must have at least " + std::to_string(rows) + " rows (one per token), got shape " +
                  shape_text(tensor));
  }
}

MlaEntriesParams validate_mla_entries(const MlaEntriesArgs& args) {
  const char* op = args.op;
  const bool reads_scale =
      (args.kind == CacheKind::kFp8E4m3 || args.kind == CacheKind::kFp8E5m2) && !args.skip_scale;
  check_same_device(op, {{args.kv_c, "kv_c"},
                         {args.k_pe, "k_pe"},
                         {args.kv_cache, "kv_cache"},
                         {args.slot_mapping, "slot_mapping"}});
  if (reads_scale) check_same_device(op, {{args.kv_c, "kv_c"}, args.scale});
  is_ds_mla(args.kind) ? check_ds_mla(args) : check_plain(args);
  const DType dtype = dtype_of(args.kv_c);
  check_dtype(args.k_pe, {op, "k_pe"}, {dtype});
  check_cache_dtype(args.kv_cache, {op, "kv_cache"}, args.kind, dtype);
  check_dim(args.slot_mapping, {op, "slot_mapping"}, 1);
  check_stride(args.kv_c, {op, "kv_c"}, 1, 1);
  check_stride(args.k_pe, {op, "k_pe"}, 1, 1);
  check_stride(args.kv_cache, {op, "kv_cache"}, 2, 1);
  const int64_t cache_element_bytes = element_bytes(dtype_of(args.kv_cache));
  return {
      .kv_c = readable(args.kv_c, {op, "kv_c"}),
      .k_pe = readable(args.k_pe, {op, "k_pe"}),
      .kv_cache = static_cast<char*>(writable(args.kv_cache, {op, "kv_cache"})),
      .slot_mapping = readable_int64(args.slot_mapping, {op, "slot_mapping"}),
      .scale = reads_scale ? readable_scale(args.scale.tensor, {op, args.scale.name}, 1) : nullptr,
      .dtype = dtype,
      .kind = is_ds_mla(args.kind) ? CacheKind::kFp8DsMla : args.kind,
      .power_of_two_scales = args.kind == CacheKind::kFp8DsMlaPow2,
      .tokens = args.slot_mapping.size(0),
      .num_slots = args.kv_cache.size(0) * args.kv_cache.size(1),
      .block_size = args.kv_cache.size(1),
      .latent_elems = args.kv_c.size(1),
      .rope_elems = args.k_pe.size(1),
      .kv_c_stride_elems = args.kv_c.stride(0),
      .k_pe_stride_elems = args.k_pe.stride(0),
      .block_stride_bytes = args.kv_cache.stride(0) * cache_element_bytes,
      .entry_stride_bytes = args.kv_cache.stride(1) * cache_element_bytes,
  };
}

}  // namespace kvops
