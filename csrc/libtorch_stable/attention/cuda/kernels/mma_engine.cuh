// Attention to 16 tokens on tensor cores, for up to 8 or 16 query heads of one KV head. Tokens are
// the rows of the first product (K Q^T), dimensions those of the second (V^T P^T): pages lie as
// both want them, and 8 heads fill an instruction. Run by each warp on tokens of its own. Needs
// sm_80, 16-bit queries whose pairs are aligned, and copies of whole pieces. Weights are rounded to
// Operand for their product with values; sums of weights are not.
#pragma once

#include <cstdint>
#include <type_traits>

#include "attention/cuda/kernels/fp8_halves.cuh"
#include "attention/cuda/kernels/mma.cuh"
#include "attention/cuda/kernels/stage.cuh"
#include "attention/cuda/kernels/stage_barriers.cuh"
#include "attention/cuda/kernels/unit_result.cuh"
#include "common/cuda/convert.cuh"

namespace kvops::kernels {

// Operand: what the tensor cores multiply: the cache's type, or half for fp8, which both fp8 types
// convert to exactly. kMaxDims: head sizes up to this. kHeadTiles: of 8 query heads.
template <class Operand, class CacheElem, int kMaxDims, int kHeadTiles>
class MmaEngine {
 public:
  using Cache = CacheElem;
  static constexpr bool kMayBeUnaligned = false;
  static constexpr int kArchitecture = 800;
  static constexpr int kGroups = kMaxDims * kHeadTiles > 256 ? 1 : kMaxGroups;  // at most
  // Of a thread. 168 are what two groups have room for: with 160, which spill nothing up to 128
  // dimensions of 8 heads, a warp or two of a copy kernel (swap/) find room beside them.
  static constexpr int kRegisters = kGroups == 1 ? 255 : kMaxDims * kHeadTiles > 128 ? 168 : 160;

  __device__ MmaEngine(const PagedAttentionParams& p, const AttentionPlan& plan,
                       const StageOffsets& offsets, char* shared)
      : p_(p),
        plan_(plan),
        lane_(static_cast<int>(threadIdx.x % 32)),
        row_(lane_ / 4),
        column_(lane_ % 4),
        dims_(static_cast<int>(p.head_size)),
        scale_(p.scale * (p.k_scale != nullptr ? *p.k_scale : 1.0f) * kLog2E),
        shared_query_(reinterpret_cast<uint2*>(shared + plan.shared.engine)) {
    const StageLayout& stage = plan.shared.stage;
    const int matrix = lane_ / 8;
    const int line = lane_ % 8;
    if constexpr (kIsFp8) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int token = this->token(r);
        key_at_[r] = token / kOctet * offsets.key_octet + token % kOctet * static_cast<int>(p.x) +
                     (p.x == 16 ? column_ * 4 : column_ / 2 * stage.key_pitch + column_ % 2 * 4);
      }
      value_at_ = column_ / 2 * offsets.value_octet + column_ % 2 * 4 + row_ * stage.value_pitch;
    } else {
      // Matrices: tokens 0-7 and 8-15 of dimensions 0-7, then of dimensions 8-15.
      key_at_[0] = matrix % 2 * offsets.key_octet + line * 16 + matrix / 2 * stage.key_pitch;
      // Matrices: dimensions 0-7 and 8-15 of tokens 0-7, then of tokens 8-15.
      value_at_ = matrix / 2 * offsets.value_octet + (matrix % 2 * 8 + line) * stage.value_pitch;
    }
  }

  // Called by all warps together, after the last unit's rows are stored.
  __device__ __forceinline__ void begin_unit(int64_t seq, const UnitHeads& heads) {
#pragma unroll
    for (int tile = 0; tile < kHeadTiles; ++tile) {
      const float row_factor = load_query(tile, query_row(seq, heads, tile * 8 + row_));
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int head = 2 * column_ + e;
        const float factor = __shfl_sync(~0u, row_factor, head * 4);
        const bool has_slope = p_.alibi_slopes != nullptr && tile * 8 + head < heads.count;
        logit_scales_[tile][e] = scale_ / factor;
        slopes_[tile][e] =
            has_slope ? p_.alibi_slopes[heads.first + tile * 8 + head] * kLog2E : 0.0f;
        reference_[tile][e] = kNoLogit;
        sum_[tile][e] = 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) values_[tile][i][e] = 0.0f;
      }
    }
    if constexpr (kQueryInShared) compute_sync(plan_);
  }

  __device__ __forceinline__ void attend(const Stage& stage) {
    // Without bounds and masks inside, there is half as much to do.
    if (dims_ == kMaxDims && stage.mask == kAllTokens) {
      attend<true>(stage);
    } else {
      attend<false>(stage);
    }
  }

  // Rows [first, first + rows) of the unit, for WarpRows, and their states.
  __device__ __forceinline__ void store_rows(int first, int rows, float* to, float2* states) const {
#pragma unroll
    for (int tile = 0; tile < kHeadTiles; ++tile) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float sum = sum_[tile][e];
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
        const int head = tile * 8 + 2 * column_ + e;
        const int row = head - first;
        if (row < 0 || row >= rows) continue;
        if (row_ == 0) states[head] = {reference_[tile][e], sum * kUnshift};
        if (dims_ == kMaxDims) {
          store_row<true>(values_[tile], row, e, to);
        } else {
          store_row<false>(values_[tile], row, e, to);
        }
      }
    }
  }

 private:
  static constexpr bool kIsFp8 = sizeof(Cache) == 1;
  static constexpr bool kIsHalf = std::is_same_v<Operand, half_t>;
  static constexpr int kSteps = kMaxDims / 16;
  static constexpr bool kQueryInShared = kMaxDims > 128 && kHeadTiles > 1;
  // Weights of halves are 2^10 times as large, so that small ones keep their precision.
  static constexpr float kShift = kIsHalf ? 10.0f : 0.0f;
  static constexpr float kUnshift = kIsHalf ? 1.0f / 1024.0f : 1.0f;
  // Weights are relative to a reference that logits may exceed by so much (weights reach 2^14 in
  // half): it needs not to be raised, and sums so far not to be rescaled, with every new maximum.
  static constexpr float kSlack = 4.0f;

  // The tokens of a lane's logits, r = 0 and 1. Those of fp8 are ordered so that what two lanes in
  // one column have belongs to words of four values, and that eight keys lie in all banks.
  __device__ __forceinline__ int token(int r) const {
    if constexpr (kIsFp8) {
      const int first = 4 * (row_ / 2) + row_ % 2 + (row_ < 4 ? 0 : 2);
      return r == 0 ? first : first ^ 2;
    } else {
      return row_ + 8 * r;
    }
  }

  // The lane's dimensions of a row. Those 32 apart lie 32 apart in WarpRows.
  template <bool kIsWhole>
  __device__ __forceinline__ void store_row(const float (&values)[kSteps][4], int row, int e,
                                            float* to) const {
    const int dims = kIsWhole ? kMaxDims : not_hoisted(dims_);
#pragma unroll
    for (int octet = 0; octet < 4; ++octet) {
      float* const at = to + WarpRows::at(row, octet * 8 + row_, dims);
#pragma unroll
      for (int i = octet / 2; i < kSteps; i += 2) {
        if (!kIsWhole && i * 16 + octet % 2 * 8 >= dims) break;
        at[i / 2 * 32] = values[i][octet % 2 * 2 + e] * kUnshift;
      }
    }
  }

  // ---- queries

  // Where a lane's row of the query is; rows that there are not are 0.
  struct QueryRow {
    int64_t at;
    bool exists;
  };

  __device__ __forceinline__ QueryRow query_row(int64_t seq, const UnitHeads& heads,
                                                int row) const {
    const int64_t at = seq * p_.query_seq_stride + (heads.first + row) * p_.query_head_stride;
    return {at, row < heads.count};
  }

  // Dimensions of the two pairs of a row that a lane has in a step: as the bytes of keys lie.
  __device__ __forceinline__ int query_dim(int step, int pair) const {
    return step * 16 + (kIsFp8 ? 4 * column_ + 2 * pair : 2 * column_ + 8 * pair);
  }

  __device__ __forceinline__ uint32_t query_pair(const QueryRow& row, int dim) const {
    const auto* const from = static_cast<const uint16_t*>(p_.query) + row.at + dim;
    uint32_t pair = 0;
    if (row.exists && dim < dims_) pair = *reinterpret_cast<const uint32_t*>(from);
    return pair;
  }

  // B operands of one step: the lane's column is its row of the query.
  __device__ __forceinline__ uint2 query_step(const QueryRow& row, int step) const {
    return {query_pair(row, query_dim(step, 0)), query_pair(row, query_dim(step, 1))};
  }

  // bfloat16 has a wider range than half, so a row is scaled by a power of two: its largest element
  // becomes 2^14 to 2^15, and what is lost is less than 2^-38 of that.
  static __device__ __forceinline__ float half_factor(float largest) {
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    const int exponent = static_cast<int>(float_bits(largest) >> 23);  // plus 127
    if (exponent == 0 || exponent == 255) return 1.0f;
    const int shift = 14 + 127 - exponent;
    return bits_float(static_cast<uint32_t>(127 + (shift < 100 ? shift : 100)) << 23);
  }

  static __device__ __forceinline__ float largest_of(uint32_t pair) {
    return fmaxf(fabsf(bits_float(pair << 16)), fabsf(bits_float(pair & 0xffff0000u)));
  }

  static __device__ __forceinline__ uint32_t scaled_half(uint32_t pair, float factor) {
    return pack(bits_float(pair << 16) * factor, bits_float(pair & 0xffff0000u) * factor, half_t{});
  }

  // All steps of a row of the query; gives what they have been multiplied by on the way to Operand.
  // Every warp needs all of them: where registers do not hold them, each warp keeps a part in
  // shared memory.
  __device__ __forceinline__ float load_query(int tile, const QueryRow& row) {
    uint2 steps[kSteps];
#pragma unroll
    for (int step = 0; step < kSteps; ++step) steps[step] = query_step(row, step);
    float factor = 1.0f;
    if (kIsFp8 && p_.query_dtype == DType::kBFloat16) {
      float largest = 0.0f;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        largest = fmaxf(largest, fmaxf(largest_of(steps[step].x), largest_of(steps[step].y)));
      }
      factor = half_factor(largest);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        steps[step] = {scaled_half(steps[step].x, factor), scaled_half(steps[step].y, factor)};
      }
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if constexpr (!kQueryInShared) {
        query_[tile][step] = steps[step];
      } else if (step % plan_.warps == static_cast<int>(threadIdx.x) / 32) {
        shared_query_[(step * kHeadTiles + tile) * 32 + lane_] = steps[step];
      }
    }
    return factor;
  }

  __device__ __forceinline__ uint2 query(int tile, int step) const {
    if constexpr (kQueryInShared) {
      return shared_query_[(step * kHeadTiles + tile) * 32 + lane_];
    } else {
      return query_[tile][step];
    }
  }

  // ---- attend. kIsWhole: all dimensions and all tokens are there.

  template <bool kIsWhole>
  __device__ __forceinline__ void attend(const Stage& stage) {
    // Even and odd steps on their own: shorter chains.
    float logits[kHeadTiles][2][4] = {};
    const int dims = kIsWhole ? kMaxDims : not_hoisted(dims_);
    const char* keys = stage.keys;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t a[4];
      load_keys<kIsWhole>(keys, dims - step * 16, a);
#pragma unroll
      for (int tile = 0; tile < kHeadTiles; ++tile) {
        const uint2 b = query(tile, step);
        multiply_add(logits[tile][step % 2], a, b.x, b.y, Operand{});
      }
      // Where there are no more dimensions, what is loaded is not used.
      if (kIsWhole || (step + 1) * 16 < dims) keys += plan_.shared.stage.key_step;
    }
    uint2 weights[kHeadTiles];
    to_weights<kIsWhole>(stage, logits, weights);
    const uint2 value_masks = kIsWhole ? uint2{} : masks_of_values(stage.mask);
    const char* values = stage.values;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      uint32_t a[4];
      load_values<kIsWhole>(values, dims - i * 16, a);
      if constexpr (!kIsWhole) {
        a[0] &= value_masks.x;
        a[1] &= value_masks.x;
        a[2] &= value_masks.y;
        a[3] &= value_masks.y;
      }
#pragma unroll
      for (int tile = 0; tile < kHeadTiles; ++tile) {
        multiply_add(values_[tile][i], a, weights[tile].x, weights[tile].y, Operand{});
      }
      if (kIsWhole || (i + 1) * 16 < dims) values += plan_.shared.stage.value_step;
    }
  }

  // A operands of 16 dimensions, of which `left` are there; the others become 0.
  template <bool kIsWhole>
  __device__ __forceinline__ void load_keys(const char* keys, int left, uint32_t (&a)[4]) const {
    if constexpr (kIsFp8) {
      const bool exists = kIsWhole || column_ * 4 < left;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint32_t word = 0;
        if (exists) word = *reinterpret_cast<const uint32_t*>(keys + key_at_[r]);
        const HalfPairs pairs = to_halves(word, Cache{});
        a[r] = pairs.first;
        a[2 + r] = pairs.second;
      }
    } else if constexpr (kIsWhole) {
      load_matrices(a, keys + key_at_[0]);
    } else {
      const bool has_second = left > 8;
      load_matrices(
          a, keys + key_at_[0] - (has_second ? 0 : lane_ / 16 * plan_.shared.stage.key_pitch));
      if (left <= 0) a[0] = a[1] = 0;
      if (!has_second) a[2] = a[3] = 0;
    }
  }

  // A operands of 16 dimensions. Results of dimensions that there are not are not looked at.
  template <bool kIsWhole>
  __device__ __forceinline__ void load_values(const char* values, int left,
                                              uint32_t (&a)[4]) const {
    const int octet_of_dims = kOctet * plan_.shared.stage.value_pitch;
    if constexpr (kIsFp8) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint32_t word = 0;
        if (kIsWhole || r * 8 < left) {
          word = *reinterpret_cast<const uint32_t*>(values + value_at_ + r * octet_of_dims);
        }
        const HalfPairs pairs = to_halves(word, Cache{});
        a[r] = pairs.first;
        a[2 + r] = pairs.second;
      }
    } else if constexpr (kIsWhole) {
      load_matrices(a, values + value_at_);
    } else {
      load_matrices(a, values + value_at_ - (left > 8 ? 0 : lane_ / 8 % 2 * octet_of_dims));
    }
  }

  // Values of tokens that are not attended to may be anything: 0 times NaN is not 0.
  __device__ __forceinline__ uint2 masks_of_values(uint32_t mask) const {
    const int first = kIsFp8 ? 4 * column_ : 2 * column_;
    const int second = kIsFp8 ? first + 2 : first + 8;
    return {pair_mask(mask >> first), pair_mask(mask >> second)};
  }
  static __device__ __forceinline__ uint32_t pair_mask(uint32_t bits) {
    return ((bits & 1u) != 0 ? 0x0000ffffu : 0u) | ((bits & 2u) != 0 ? 0xffff0000u : 0u);
  }

  // B operands of the second product: weights, transposed.
  template <bool kIsWhole>
  __device__ __forceinline__ void to_weights(const Stage& stage,
                                             const float (&products)[kHeadTiles][2][4],
                                             uint2 (&weights)[kHeadTiles]) {
    float logits[kHeadTiles][4];
    bool rises = false;
#pragma unroll
    for (int tile = 0; tile < kHeadTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = i / 2;
        const int e = i % 2;
        const float product = products[tile][0][i] + products[tile][1][i];
        // Never fused with what follows: a slope of 0 changes no bit.
        float logit = __fmul_rn(product, logit_scales_[tile][e]);
        if (p_.alibi_slopes != nullptr) {
          const float distance = static_cast<float>(stage.distance + token(r));
          logit = __fmaf_rn(distance, slopes_[tile][e], logit);
        }
        if (!kIsWhole && (stage.mask >> token(r) & 1u) == 0) logit = -INFINITY;
        // A NaN is no reference; it reaches the result through the sum.
        rises = rises || logit > reference_[tile][e] + kSlack;
        logits[tile][i] = logit;
      }
    }
    if (__any_sync(~0u, rises)) raise_references(logits);
#pragma unroll
    for (int tile = 0; tile < kHeadTiles; ++tile) {
      float w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        w[i] = power_of_2(__fadd_rn(logits[tile][i], kShift - reference_[tile][i % 2]));
        sum_[tile][i % 2] += w[i];
      }
      const uint32_t first = transpose(pack(w[0], w[1], Operand{}));
      const uint32_t second = transpose(pack(w[2], w[3], Operand{}));
      const bool is_swapped = kIsFp8 && column_ >= 2;
      weights[tile] = is_swapped ? uint2{second, first} : uint2{first, second};
    }
  }

  // To the largest logits so far, with what has been summed up.
  __device__ __forceinline__ void raise_references(const float (&logits)[kHeadTiles][4]) {
#pragma unroll
    for (int tile = 0; tile < kHeadTiles; ++tile) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float largest = fmaxf(logits[tile][e], logits[tile][2 + e]);
#pragma unroll
        for (int step = 4; step < 32; step *= 2) {
          largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
        }
        largest = fmaxf(largest, reference_[tile][e]);
        const float factor = power_of_2(reference_[tile][e] - largest);
        reference_[tile][e] = largest;
        sum_[tile][e] *= factor;
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          values_[tile][i][e] *= factor;
          values_[tile][i][2 + e] *= factor;
        }
      }
    }
  }

  const PagedAttentionParams& p_;
  const AttentionPlan& plan_;
  int lane_;
  int row_;     // of A and C, and row_ + 8; column of B
  int column_;  // of four: pairs of columns of C
  int dims_;
  int key_at_[kIsFp8 ? 2 : 1];  // of the lane's first piece or words, from the first token's keys
  int value_at_;
  float scale_;
  float slopes_[kHeadTiles][2];
  float logit_scales_[kHeadTiles][2];
  float reference_[kHeadTiles][2];
  float sum_[kHeadTiles][2];  // of the lane's tokens
  uint2 query_[kQueryInShared ? 1 : kHeadTiles][kQueryInShared ? 1 : kSteps];
  uint2* shared_query_;  // [steps][kHeadTiles][32]
  float values_[kHeadTiles][kSteps][4];
};

}  // namespace kvops::kernels
