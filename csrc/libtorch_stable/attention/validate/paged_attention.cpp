// Contract of paged_attention_v1 and _v2 (spec 9, stricter as spec 17 suggests).
// Called by the CPU and CUDA operators. Wider than vLLM: head and block sizes up to 256 in steps
// of 8, every tensor's own strides, scratch tensors that are larger than needed.
#include <limits>

#include "attention/validate.h"
#include "common/checks.h"

namespace kvops {
namespace {

constexpr int64_t kSizeStep = 8;
constexpr int64_t kLargestSize = 256;

void check_size_step(int64_t size, Arg arg, const char* what) {
  if (size < kSizeStep || size > kLargestSize || size % kSizeStep != 0) {
    fail(arg, std::string("must have a ") + what + " that is a multiple of 8 from 8 to 256, got " +
                  std::to_string(size));
  }
}

void check_equal(int64_t value, Arg arg, int64_t expected, const char* what) {
  if (value != expected) {
    fail(arg, std::string("must be ") + what + ", " + std::to_string(expected) + ", got " +
                  std::to_string(value));
  }
}

// Inner dimension dense, the others of any stride.
void check_rows(const Tensor& tensor, Arg arg, DType dtype) {
  check_dtype(tensor, arg, {dtype});
  check_stride(tensor, arg, tensor.dim() - 1, 1);
}

void check_devices(const PagedAttentionArgs& a, CacheKind kind) {
  check_same_device(a.op, {{a.query, "query"},
                           {a.out, "out"},
                           {a.key_cache, "key_cache"},
                           {a.value_cache, "value_cache"},
                           {a.block_tables, "block_tables"},
                           {a.seq_lens, "seq_lens"}});
  if (a.alibi_slopes) {
    check_same_device(a.op, {{a.query, "query"}, {*a.alibi_slopes, "alibi_slopes"}});
  }
  if (kind != CacheKind::kAuto) {
    check_same_device(a.op, {{a.query, "query"}, {a.k_scale, "k_scale"}, {a.v_scale, "v_scale"}});
  }
}

// Elements of a key that lie together: 16 bytes of them. Where that does not divide the head size
// (fp8 and head sizes such as 24 or 120), 8 elements.
void check_x(const PagedAttentionArgs& a, int64_t head_size) {
  const int64_t x = a.key_cache.size(4);
  const int64_t usual = 16 / static_cast<int64_t>(a.key_cache.element_size());
  const bool is_fp8_half = usual == 16 && x == 8;
  if ((x != usual && !is_fp8_half) || head_size % x != 0) {
    fail({a.op, "key_cache"},
         "must have x = " + std::to_string(usual) + (usual == 16 ? " or 8" : "") +
             " elements in dimension 4 and x must divide the head size " +
             std::to_string(head_size) + ", got shape " + shape_text(a.key_cache));
  }
}

void check_caches(const PagedAttentionArgs& a, CacheKind kind, DType dtype) {
  const Arg key{a.op, "key_cache"};
  const Arg value{a.op, "value_cache"};
  const int64_t head_size = a.query.size(2);
  check_cache_dtype(a.key_cache, key, kind, dtype);
  check_dtype(a.value_cache, value, {dtype_of(a.key_cache)});
  check_dim(a.key_cache, key, 5);
  check_x(a, head_size);
  const int64_t num_blocks = a.key_cache.size(0);
  const int64_t x = a.key_cache.size(4);
  check_equal(a.num_kv_heads, {a.op, "num_kv_heads"}, a.key_cache.size(1), "key_cache.size(1)");
  check_equal(a.block_size, {a.op, "block_size"}, a.key_cache.size(3), "key_cache.size(3)");
  check_shape(a.key_cache, key, {num_blocks, a.num_kv_heads, head_size / x, a.block_size, x});
  check_shape(a.value_cache, value, {num_blocks, a.num_kv_heads, head_size, a.block_size});
  check_dense_from(a.key_cache, key, 2);
  check_dense_from(a.value_cache, value, 2);
}

void check_heads(const PagedAttentionArgs& a) {
  const int64_t num_heads = a.query.size(1);
  if (a.num_kv_heads < 1 || num_heads % a.num_kv_heads != 0) {
    fail({a.op, "num_kv_heads"}, "must divide the number of query heads " +
                                     std::to_string(num_heads) + ", got " +
                                     std::to_string(a.num_kv_heads));
  }
}

int64_t checked_int32(int64_t value, Arg arg, int64_t lowest) {
  if (value < lowest || value > std::numeric_limits<int32_t>::max()) {
    fail(arg, "must be an int32 that is at least " + std::to_string(lowest) + ", got " +
                  std::to_string(value));
  }
  return value;
}

BlockSparse validate_block_sparse(const PagedAttentionArgs& a) {
  if (a.blocksparse_vert_stride <= 1) return {};
  constexpr int64_t kLowest = std::numeric_limits<int32_t>::min();
  return {
      .active = true,
      .tp_rank = checked_int32(a.tp_rank, {a.op, "tp_rank"}, 0),
      .local_blocks =
          checked_int32(a.blocksparse_local_blocks, {a.op, "blocksparse_local_blocks"}, kLowest),
      .vert_stride = checked_int32(a.blocksparse_vert_stride, {a.op, "blocksparse_vert_stride"}, 2),
      .block_tokens = checked_int32(a.blocksparse_block_size, {a.op, "blocksparse_block_size"}, 1),
      .head_sliding_step = checked_int32(a.blocksparse_head_sliding_step,
                                         {a.op, "blocksparse_head_sliding_step"}, kLowest),
  };
}

const float* alibi_slopes(const PagedAttentionArgs& a) {
  if (!a.alibi_slopes) return nullptr;
  const Arg arg{a.op, "alibi_slopes"};
  check_shape(*a.alibi_slopes, arg, {a.query.size(1)});
  check_dtype(*a.alibi_slopes, arg, {DType::kFloat});
  check_stride(*a.alibi_slopes, arg, 0, 1);
  return static_cast<const float*>(readable(*a.alibi_slopes, arg));
}

int64_t max_tokens(const PagedAttentionArgs& a) {
  if (a.max_seq_len < 0) {
    fail({a.op, "max_seq_len"}, "must not be negative, got " + std::to_string(a.max_seq_len));
  }
  const int64_t table_tokens = a.block_tables.size(1) * a.block_size;
  return a.max_seq_len < table_tokens ? a.max_seq_len : table_tokens;
}

// No partition at all (max_seq_len is 0): strides mean nothing.
void check_contiguous(const Tensor& tensor, Arg arg) {
  if (tensor.numel() != 0) check_dense_from(tensor, arg, 0);
}

float* validate_partition_sums(const PagedAttentionArgs& a, const Tensor& tensor, const char* name,
                               int64_t partitions) {
  const Arg arg{a.op, name};
  check_same_device(a.op, {{a.query, "query"}, {tensor, name}});
  check_dtype(tensor, arg, {DType::kFloat});
  check_shape(tensor, arg, {a.query.size(0), a.query.size(1), partitions});
  check_contiguous(tensor, arg);
  return static_cast<float*>(writable(tensor, arg));
}

}  // namespace

PagedAttentionParams validate_paged_attention_v1(const PagedAttentionArgs& a) {
  const CacheKind kind = parse_cache_kind(
      a.kv_cache_dtype, a.op, {CacheKind::kAuto, CacheKind::kFp8E4m3, CacheKind::kFp8E5m2});
  check_devices(a, kind);
  const Arg query{a.op, "query"};
  const Arg out{a.op, "out"};
  check_dim(a.query, query, 3);
  check_size_step(a.query.size(2), query, "head size");
  const DType dtype = check_dtype(a.query, query, {DType::kHalf, DType::kBFloat16, DType::kFloat});
  check_rows(a.query, query, dtype);
  check_shape(a.out, out, {a.query.size(0), a.query.size(1), a.query.size(2)});
  check_rows(a.out, out, dtype);
  check_caches(a, kind, dtype);
  check_size_step(a.block_size, {a.op, "key_cache"}, "block size");
  check_heads(a);
  check_shape(a.block_tables, {a.op, "block_tables"}, {a.query.size(0), kAnySize});
  check_shape(a.seq_lens, {a.op, "seq_lens"}, {a.query.size(0)});
  const bool is_fp8 = kind != CacheKind::kAuto;
  return {
      .out = writable(a.out, out),
      .query = readable(a.query, query),
      .key_cache = readable(a.key_cache, {a.op, "key_cache"}),
      .value_cache = readable(a.value_cache, {a.op, "value_cache"}),
      .block_tables = readable_int32(a.block_tables, {a.op, "block_tables"}),
      .seq_lens = readable_int32(a.seq_lens, {a.op, "seq_lens"}),
      .alibi_slopes = alibi_slopes(a),
      .k_scale = is_fp8 ? readable_scale(a.k_scale, {a.op, "k_scale"}, 1) : nullptr,
      .v_scale = is_fp8 ? readable_scale(a.v_scale, {a.op, "v_scale"}, 1) : nullptr,
      .exp_sums = nullptr,
      .max_logits = nullptr,
      .tmp_out = nullptr,
      .num_seqs = a.query.size(0),
      .num_heads = a.query.size(1),
      .num_kv_heads = a.num_kv_heads,
      .head_size = a.query.size(2),
      .block_size = a.block_size,
      .num_blocks = a.key_cache.size(0),
      .max_blocks = a.block_tables.size(1),
      .max_tokens = max_tokens(a),
      .scratch_partitions = 0,
      .x = a.key_cache.size(4),
      .out_seq_stride = a.out.stride(0),
      .out_head_stride = a.out.stride(1),
      .query_seq_stride = a.query.stride(0),
      .query_head_stride = a.query.stride(1),
      .key_block_stride = a.key_cache.stride(0),
      .key_head_stride = a.key_cache.stride(1),
      .value_block_stride = a.value_cache.stride(0),
      .value_head_stride = a.value_cache.stride(1),
      .table_seq_stride = a.block_tables.stride(0),
      .scale = static_cast<float>(a.scale),
      .query_dtype = dtype,
      .cache_kind = kind,
      .sparse = validate_block_sparse(a),
  };
}

PagedAttentionParams validate_paged_attention_v2(const PagedAttentionArgs& a,
                                                 const PartitionScratch& scratch) {
  PagedAttentionParams p = validate_paged_attention_v1(a);
  const Arg sums{a.op, "exp_sums"};
  const Arg tmp_out{a.op, "tmp_out"};
  check_dim(scratch.exp_sums, sums, 3);
  const int64_t partitions = scratch.exp_sums.size(2);
  const int64_t needed = a.max_seq_len / kPartitionTokens + (a.max_seq_len % kPartitionTokens != 0);
  if (partitions < needed) {
    fail(sums, "must have room for " + std::to_string(needed) + " partitions of 512 tokens" +
                   " (max_seq_len is " + std::to_string(a.max_seq_len) + "), got shape " +
                   shape_text(scratch.exp_sums));
  }
  p.exp_sums = validate_partition_sums(a, scratch.exp_sums, "exp_sums", partitions);
  p.max_logits = validate_partition_sums(a, scratch.max_logits, "max_logits", partitions);
  check_same_device(a.op, {{a.query, "query"}, {scratch.tmp_out, "tmp_out"}});
  check_dtype(scratch.tmp_out, tmp_out, {p.query_dtype});
  check_shape(scratch.tmp_out, tmp_out, {p.num_seqs, p.num_heads, partitions, p.head_size});
  check_contiguous(scratch.tmp_out, tmp_out);
  p.tmp_out = writable(scratch.tmp_out, tmp_out);
  p.scratch_partitions = partitions;
  return p;
}

}  // namespace kvops
