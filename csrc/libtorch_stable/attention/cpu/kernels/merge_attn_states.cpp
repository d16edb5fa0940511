// Merging of attention over two parts of a context, row by row. Compiled once per SIMD level.
// Called by attention/cpu/merge_attn_states.cpp through the table at the end.
// Instantiations: 3 dtypes, each with output of that dtype or of e4m3 = 6.
#include "attention/cpu/kernels.h"
#include "common/float_convert.h"

namespace kvops::cpu::KVOPS_ISA {
namespace {

// One row: where it is, and how its parts are weighted.
struct MergedRow {
  float prefix_weight;
  float suffix_weight;
  float lse;
  bool prefix_only;  // no token anywhere: the prefix as it is
};

constexpr float kInfinity = __builtin_inff();

// An infinite lse of either sign means "no token".
inline float usable_lse(float lse) { return lse == kInfinity ? -kInfinity : lse; }

inline MergedRow weigh(float prefix_lse, float suffix_lse) {
  const float prefix = usable_lse(prefix_lse);
  const float suffix = usable_lse(suffix_lse);
  // NaN is larger than everything here, so that it reaches the results.
  const float largest = prefix > suffix || prefix != prefix ? prefix : suffix;
  if (largest == -kInfinity) return {1.0f, 0.0f, -kInfinity, true};
  const float prefix_sum = __builtin_expf(prefix - largest);
  const float suffix_sum = __builtin_expf(suffix - largest);
  const float sum = prefix_sum + suffix_sum;
  return {prefix_sum / sum, suffix_sum / sum, __builtin_logf(sum) + largest, false};
}

// factor: 1 / output_scale for e4m3 outputs, else 1.
template <class T, class Out>
void copy_row(const T* from, Out* to, int64_t head_size, float factor) {
  for (int64_t d = 0; d < head_size; ++d) to[d] = from_float<Out>(to_float(from[d]) * factor);
}

// The suffix's product is rounded, the prefix's is fused with the addition.
template <class T, class Out>
void merge_row(const MergedRow& row, const T* prefix, const T* suffix, Out* to, int64_t head_size,
               float factor) {
  for (int64_t d = 0; d < head_size; ++d) {
    const float weighted_suffix = to_float(suffix[d]) * row.suffix_weight;
    const float merged = __builtin_fmaf(to_float(prefix[d]), row.prefix_weight, weighted_suffix);
    to[d] = from_float<Out>(merged * factor);
  }
}

template <class T, class Out>
void merge_rows_of(const MergeAttnStatesParams& p, int64_t begin, int64_t end) {
  const float factor = p.output_scale != nullptr ? 1.0f / *p.output_scale : 1.0f;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t token = i / p.num_heads;
    const int64_t head = i % p.num_heads;
    Out* to =
        static_cast<Out*>(p.output) + token * p.output_token_stride + head * p.output_head_stride;
    const T* suffix = static_cast<const T*>(p.suffix_output) + token * p.suffix_token_stride +
                      head * p.suffix_head_stride;
    const float suffix_lse =
        p.suffix_lse[head * p.suffix_lse_head_stride + token * p.suffix_lse_token_stride];
    float lse = suffix_lse;
    if (token < p.tokens_with_prefix) {
      const T* prefix = static_cast<const T*>(p.prefix_output) + token * p.prefix_token_stride +
                        head * p.prefix_head_stride;
      const MergedRow row =
          weigh(p.prefix_lse[head * p.prefix_lse_head_stride + token * p.prefix_lse_token_stride],
                suffix_lse);
      lse = row.lse;
      if (row.prefix_only) {
        copy_row(prefix, to, p.head_size, factor);
      } else {
        merge_row(row, prefix, suffix, to, p.head_size, factor);
      }
    } else {
      copy_row(suffix, to, p.head_size, factor);
    }
    if (p.output_lse != nullptr) {
      p.output_lse[head * p.output_lse_head_stride + token * p.output_lse_token_stride] = lse;
    }
  }
}

template <class T>
void merge_rows_from(const MergeAttnStatesParams& p, int64_t begin, int64_t end) {
  if (p.output_scale != nullptr) return merge_rows_of<T, e4m3_t>(p, begin, end);
  return merge_rows_of<T, T>(p, begin, end);
}

void merge_rows(const MergeAttnStatesParams& p, int64_t begin, int64_t end) {
  switch (p.dtype) {
    case DType::kHalf:
      return merge_rows_from<half_t>(p, begin, end);
    case DType::kBFloat16:
      return merge_rows_from<bfloat16_t>(p, begin, end);
    default:
      return merge_rows_from<float>(p, begin, end);
  }
}

}  // namespace

extern const MergeAttnStatesKernels merge_attn_states_kernels_table;
const MergeAttnStatesKernels merge_attn_states_kernels_table = {.merge_rows = merge_rows};

}  // namespace kvops::cpu::KVOPS_ISA
