// Paged attention, the SIMD part: partitions and their combination. Compiled once per level.
// Called by attention/cpu/paged_attention.cpp through the table at the end.
// Instantiations: 5 element types, with x = 16 and 8 for the two fp8 ones = 7.
#include "attention/cpu/kernels/attend.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

void attend_partition(const PagedAttentionParams& p, const PartitionTask& task) {
  switch (p.cache_kind) {
    case CacheKind::kFp8E4m3:
      return p.x == 16 ? attend<e4m3_t, 16>(p, task) : attend<e4m3_t, 8>(p, task);
    case CacheKind::kFp8E5m2:
      return p.x == 16 ? attend<e5m2_t, 16>(p, task) : attend<e5m2_t, 8>(p, task);
    default:
      break;
  }
  switch (p.query_dtype) {
    case DType::kHalf:
      return attend<half_t, 8>(p, task);
    case DType::kBFloat16:
      return attend<bfloat16_t, 8>(p, task);
    default:
      return attend<float, 4>(p, task);
  }
}

float exp_of_difference(float a, float b) { return exp_nonpositive<4>(broadcast<4>(a - b))[0]; }

// What the stored sums lack: v_scale and the factor that loading left out.
float value_factor(const PagedAttentionParams& p) {
  const float v_scale = p.v_scale != nullptr ? *p.v_scale : 1.0f;
  return p.cache_kind == CacheKind::kFp8E4m3 ? v_scale * kLoadFactor<e4m3_t> : v_scale;
}

void store_row(const PagedAttentionParams& p, const CombineTask& task, const float* row) {
  const int64_t offset = task.seq * p.out_seq_stride + task.head * p.out_head_stride;
  const auto convert = [&](auto* to) {
    for (int64_t d = 0; d < p.head_size; ++d) to[offset + d] = narrow(row[d], *to);
  };
  switch (p.query_dtype) {
    case DType::kHalf:
      return convert(static_cast<half_t*>(p.out));
    case DType::kBFloat16:
      return convert(static_cast<bfloat16_t*>(p.out));
    default:
      return convert(static_cast<float*>(p.out));
  }
}

void combine_partitions(const PagedAttentionParams& p, const CombineTask& task) {
  float max_logit = kNoLogit;
  for (int64_t i = 0; i < task.partitions; ++i) {
    const float other = task.max_logits[i * p.num_heads];
    max_logit = other > max_logit ? other : max_logit;
  }
  float row[kMaxHeadSize] = {};
  float exp_sum = 0.0f;
  for (int64_t i = 0; i < task.partitions; ++i) {
    const float weight = exp_of_difference(task.max_logits[i * p.num_heads], max_logit);
    const float* values = task.weighted_values + i * p.num_heads * p.head_size;
    exp_sum += weight * task.exp_sums[i * p.num_heads];
    for (int64_t d = 0; d < p.head_size; ++d) row[d] += weight * values[d];
  }
  // vLLM's 1e-6: it makes the result of no token 0.
  const float factor = task.partitions == 0 ? 0.0f : value_factor(p) / (exp_sum + 1e-6f);
  for (int64_t d = 0; d < p.head_size; ++d) row[d] *= factor;
  store_row(p, task, row);
}

}  // namespace

extern const PagedAttentionKernels paged_attention_kernels_table;
const PagedAttentionKernels paged_attention_kernels_table = {
    .attend_partition = attend_partition,
    .combine_partitions = combine_partitions,
};

}  // namespace kvops::cpu::KVOPS_ISA
