// Attention to 16 tokens on tensor cores: up to 16 query heads of one KV head are the rows.
// Run by each warp on stages of its own. Needs sm_80, 16-bit queries and copies of whole pieces.
// Weights are rounded to Operand for their product with values; sums of weights are not.
#pragma once

#include <cstdint>
#include <type_traits>

#include "attention/cuda/kernels/fp8_halves.cuh"
#include "attention/cuda/kernels/mma.cuh"
#include "attention/cuda/kernels/page_loader.cuh"
#include "attention/cuda/kernels/unit_result.cuh"
#include "common/cuda/convert.cuh"

namespace kvops::kernels {

// Operand: what the tensor cores multiply: the cache's type, or half for fp8, which both fp8 types
// convert to exactly. kMaxDims: head sizes up to this.
template <class Operand, class CacheElem, int kMaxDims>
class MmaEngine {
 public:
  using Cache = CacheElem;
  static constexpr bool kIsAligned = true;
  static constexpr int kArchitecture = 800;
  static constexpr int kCombineBatch = kMaxDims > 128 ? 4 : 8;

  __device__ MmaEngine(const PagedAttentionParams& p, const AttentionPlan& plan, char* shared)
      : p_(p),
        plan_(plan),
        lane_(static_cast<int>(threadIdx.x % 32)),
        row_(lane_ / 4),
        column_(lane_ % 4),
        dims_(static_cast<int>(p.head_size)),
        scale_(p.scale * (p.k_scale != nullptr ? *p.k_scale : 1.0f) * kLog2E),
        shared_query_(reinterpret_cast<uint4*>(shared + plan.shared.engine)) {}

  // Called by all threads of the block, between two barriers.
  __device__ __forceinline__ void begin_unit(int64_t seq, const UnitHeads& heads) {
    const QueryRow rows[2] = {query_row(seq, heads, row_), query_row(seq, heads, row_ + 8)};
    load_query(rows);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      logit_scales_[half] = scale_ / rows[half].factor;
      const int row = row_ + 8 * half;
      const bool has_slope = p_.alibi_slopes != nullptr && row < heads.count;
      slopes_[half] = has_slope ? p_.alibi_slopes[heads.first + row] * kLog2E : 0.0f;
    }
  }

  // Nothing is kept from a unit that is finished: its registers are free until the next begins.
  __device__ __forceinline__ void reset() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      slopes_[half] = 0.0f;
      logit_scales_[half] = 0.0f;
      max_[half] = kNoLogit;
      sum_[half] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) values_[i][e] = 0.0f;
    }
    if constexpr (!kQueryInShared) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) query_[step] = {};
    }
  }

  __device__ __forceinline__ void attend(const Stage& stage) {
    float logits[2][4] = {};
    uint32_t weights[4];
    // Without bounds inside, loads and products of all dimensions overlap.
    if (dims_ == kMaxDims) {
      add_logits<true>(stage.keys, logits);
      to_weights(stage, logits, weights);
      add_values<true>(stage.values, weights);
    } else {
      add_logits<false>(stage.keys, logits);
      to_weights(stage, logits, weights);
      add_values<false>(stage.values, weights);
    }
  }

  // Rows [first, first + rows) of the unit to [rows][pitch], and their states.
  __device__ __forceinline__ void store_rows(int first, int rows, float* to, int pitch,
                                             float2* states) {
    const int row = row_ + (first / 8 * 8) - first;
    const int half = first / 8;
    const bool is_mine = row >= 0 && row < rows;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      if (i * 8 >= dims_ || !is_mine) continue;
      const float2 pair = half == 0 ? make_float2(values_[i][0], values_[i][1])
                                    : make_float2(values_[i][2], values_[i][3]);
      *reinterpret_cast<float2*>(to + row * pitch + i * 8 + column_ * 2) = {pair.x * kUnshift,
                                                                            pair.y * kUnshift};
    }
    float sum = half == 0 ? sum_[0] : sum_[1];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (is_mine && column_ == 0) {
      states[row] = {half == 0 ? max_[0] : max_[1], sum * kUnshift};
    }
  }

 private:
  static constexpr bool kIsFp8 = sizeof(Cache) == 1;
  static constexpr bool kIsHalf = std::is_same_v<Operand, half_t>;
  static constexpr int kSteps = kMaxDims / 16;  // of 16 dimensions, for logits
  static constexpr int kTiles = kMaxDims / 8;   // of 8 dimensions, for values
  static constexpr bool kQueryInShared = kMaxDims > 128;
  // Weights of halves are 2^10 times as large, so that small ones keep their precision.
  static constexpr float kShift = kIsHalf ? 10.0f : 0.0f;
  static constexpr float kUnshift = kIsHalf ? 1.0f / 1024.0f : 1.0f;

  // Tokens of a lane's logits are these two and the ones after them. Those of fp8 are ordered so
  // that the four belong to one word of a value's bytes, and that eight keys lie in all banks.
  __device__ __forceinline__ int first_token() const {
    return kIsFp8 ? 4 * column_ + (column_ < 2 ? 0 : 2) : 2 * column_;
  }
  __device__ __forceinline__ int second_token() const {
    return kIsFp8 ? first_token() ^ 2 : first_token() + 8;
  }

  // Dimensions of the two pairs of a row that a lane has in a step: as the bytes of keys lie.
  __device__ __forceinline__ int query_dim(int step, int pair) const {
    return step * 16 + (kIsFp8 ? 4 * column_ + 2 * pair : 2 * column_ + 8 * pair);
  }

  __device__ __forceinline__ uint32_t query_pair(int64_t at, int dim) const {
    if (dim >= dims_) return 0;
    const uint16_t* from = static_cast<const uint16_t*>(p_.query) + at + dim;
    if (plan_.has_query_pairs) return *reinterpret_cast<const uint32_t*>(from);
    return static_cast<uint32_t>(from[0]) | static_cast<uint32_t>(from[1]) << 16;
  }

  // Where a lane's row of the query is; rows that there are not are 0.
  struct QueryRow {
    int64_t at;
    float factor;  // bfloat16 is multiplied by it on its way to half
    bool exists;
  };

  __device__ __forceinline__ QueryRow query_row(int64_t seq, const UnitHeads& heads,
                                                int row) const {
    const int64_t at = seq * p_.query_seq_stride + (heads.first + row) * p_.query_head_stride;
    QueryRow result = {at, 1.0f, row < heads.count};
    if constexpr (kIsFp8) {
      if (p_.query_dtype == DType::kBFloat16) result.factor = half_factor(result);
    }
    return result;
  }

  // bfloat16 has a wider range than half, so a row is scaled by a power of two: its largest element
  // becomes 2^14 to 2^15, and what is lost is less than 2^-38 of that.
  __device__ __forceinline__ float half_factor(const QueryRow& row) const {
    float largest = 0.0f;
    for (int step = 0; step * 16 < dims_; ++step) {
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const uint32_t bits = row.exists ? query_pair(row.at, query_dim(step, pair)) : 0;
        largest = fmaxf(largest, fabsf(bits_float(bits << 16)));
        largest = fmaxf(largest, fabsf(bits_float(bits & 0xffff0000u)));
      }
    }
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    const int exponent = static_cast<int>(float_bits(largest) >> 23);  // plus 127
    if (exponent == 0 || exponent == 255) return 1.0f;
    const int shift = 14 + 127 - exponent;
    return bits_float(static_cast<uint32_t>(127 + (shift < 100 ? shift : 100)) << 23);
  }

  // A operands of one step.
  __device__ __forceinline__ uint4 query_step(const QueryRow (&rows)[2], int step) const {
    uint32_t a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const QueryRow& row = rows[i % 2];
      a[i] = row.exists ? query_pair(row.at, query_dim(step, i / 2)) : 0;
      if constexpr (kIsFp8) {
        if (p_.query_dtype == DType::kBFloat16) {
          a[i] = pack(bits_float(a[i] << 16) * row.factor,
                      bits_float(a[i] & 0xffff0000u) * row.factor, half_t{});
        }
      }
    }
    return {a[0], a[1], a[2], a[3]};
  }

  // Every warp needs all steps. Where registers do not hold them, warps fill shared memory
  // together.
  __device__ __forceinline__ void load_query(const QueryRow (&rows)[2]) {
    if constexpr (kQueryInShared) {
      const int warps = static_cast<int>(blockDim.x) / 32;
      for (int step = static_cast<int>(threadIdx.x) / 32; step * 16 < dims_; step += warps) {
        shared_query_[step * 32 + lane_] = query_step(rows, step);
      }
    } else {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) query_[step] = query_step(rows, step);
    }
  }

  // ---- logits

  // B operands of one step for tokens 0-7 (or the fp8 order's first eight) and the others.
  __device__ __forceinline__ void load_keys(const char* keys, int step, uint32_t (&b)[4]) const {
    if constexpr (kIsFp8) {
      // Columns of B are tokens: this lane's is the (lane / 4)-th.
      const int first = 4 * (row_ / 2) + row_ % 2 + (row_ < 4 ? 0 : 2);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        const int token = tile == 0 ? first : first ^ 2;
        const int offset = p_.x == 16
                               ? step * 256 + token * 16 + column_ * 4
                               : (2 * step + column_ / 2) * 128 + token * 8 + column_ % 2 * 4;
        uint32_t word = *reinterpret_cast<const uint32_t*>(keys + offset);
        if (step * 16 + column_ * 4 >= dims_) word = 0;
        const HalfPairs pairs = to_halves(word, Cache{});
        b[2 * tile] = pairs.first;
        b[2 * tile + 1] = pairs.second;
      }
    } else {
      // Matrices: dimensions 0-7 and 8-15 of tokens 0-7, then of tokens 8-15.
      const int matrix = lane_ / 8;
      const int piece = 2 * step + matrix % 2;
      const int token = matrix / 2 * 8 + lane_ % 8;
      load_matrices(b, keys + (piece * kWarpTokens + token) * 16);
      // An odd number of pieces: what comes after the last one is no key.
      if (step * 16 + 8 >= dims_) b[1] = b[3] = 0;
    }
  }

  template <bool kIsWhole>
  __device__ __forceinline__ void add_logits(const char* keys, float (&logits)[2][4]) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (!kIsWhole && step * 16 >= dims_) continue;
      uint32_t b[4];
      load_keys(keys, step, b);
      uint4 query;
      if constexpr (kQueryInShared) {
        query = shared_query_[step * 32 + lane_];
      } else {
        query = query_[step];
      }
      const uint32_t a[4] = {query.x, query.y, query.z, query.w};
      multiply_add(logits[0], a, b[0], b[1], Operand{});
      multiply_add(logits[1], a, b[2], b[3], Operand{});
    }
  }

  // ---- weights

  // Logits become weights relative to the new maximum; sums so far are rescaled to it.
  __device__ __forceinline__ void to_weights(const Stage& stage, float (&logits)[2][4],
                                             uint32_t (&weights)[4]) {
    const uint32_t mask = stage.info->mask;
    const int tokens[2] = {first_token(), second_token()};
    const float newest =
        static_cast<float>(static_cast<int64_t>(stage.info->position) - stage.info->at.seq_len + 1);
    float rescale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = max_[half];
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& logit = logits[tile][2 * half + e];
          // Never fused with what follows: a slope of 0 changes no bit.
          logit = __fmul_rn(logit, logit_scales_[half]);
          const int token = tokens[tile] + e;
          if (p_.alibi_slopes != nullptr) {
            logit = __fmaf_rn(newest + static_cast<float>(token), slopes_[half], logit);
          }
          if ((mask >> token & 1u) == 0) logit = -INFINITY;
          // A NaN is no maximum; it reaches the result through the sum.
          largest = fmaxf(largest, logit);
        }
      }
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
      rescale[half] = exp2f(max_[half] - largest);
      max_[half] = largest;
      float sum = 0.0f;
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        float* pair = &logits[tile][2 * half];
        pair[0] = exp2f(pair[0] - largest + kShift);
        pair[1] = exp2f(pair[1] - largest + kShift);
        sum += pair[0] + pair[1];
        weights[half + 2 * tile] = pack(pair[0], pair[1], Operand{});
      }
      sum_[half] = sum_[half] * rescale[half] + sum;
    }
    if (!__any_sync(~0u, rescale[0] != 1.0f || rescale[1] != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      values_[i][0] *= rescale[0];
      values_[i][1] *= rescale[0];
      values_[i][2] *= rescale[1];
      values_[i][3] *= rescale[1];
    }
  }

  // ---- values

  // B operands of tiles 2 pair and 2 pair + 1.
  __device__ __forceinline__ void load_values(const char* values, int pair,
                                              uint32_t (&b)[4]) const {
    if constexpr (kIsFp8) {
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        const int dim = (2 * pair + tile) * 8 + row_;
        const uint32_t word = *reinterpret_cast<const uint32_t*>(values + dim * 16 + column_ * 4);
        const HalfPairs pairs = to_halves(word, Cache{});
        b[2 * tile] = column_ < 2 ? pairs.first : pairs.second;
        b[2 * tile + 1] = column_ < 2 ? pairs.second : pairs.first;
      }
    } else {
      // Matrices: tokens 0-7 and 8-15 of dimensions 0-7, then of dimensions 8-15.
      const int matrix = lane_ / 8;
      const int dim = (2 * pair + matrix / 2) * 8 + lane_ % 8;
      load_matrices(b, values + matrix % 2 * plan_.shared.value_pitch + dim * 16);
    }
  }

  template <bool kIsWhole>
  __device__ __forceinline__ void add_values(const char* values, const uint32_t (&weights)[4]) {
#pragma unroll
    for (int pair = 0; pair < kTiles / 2; ++pair) {
      if (!kIsWhole && pair * 16 >= dims_) continue;
      uint32_t b[4];
      load_values(values, pair, b);
      multiply_add(values_[2 * pair], weights, b[0], b[1], Operand{});
      if (!kIsWhole && pair * 16 + 8 >= dims_) continue;
      multiply_add(values_[2 * pair + 1], weights, b[2], b[3], Operand{});
    }
  }

  const PagedAttentionParams& p_;
  const AttentionPlan& plan_;
  int lane_;
  int row_;     // and row_ + 8
  int column_;  // of four
  int dims_;
  float scale_;
  float slopes_[2];
  float logit_scales_[2];
  float max_[2];
  float sum_[2];  // of the lane's tokens
  uint4 query_[kQueryInShared ? 1 : kSteps];
  uint4* shared_query_;  // [kSteps][32]
  float values_[kTiles][4];
};

}  // namespace kvops::kernels
