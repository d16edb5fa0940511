// Attention to 16 tokens by fused multiply-adds in fp32: any element type, any architecture. Run by
// each warp on tokens of its own, for up to kHeads query heads of one KV head. Logits: a lane has
// one token and every second piece of its key. Values: a lane has every 32nd dimension, of all
// tokens.
#pragma once

#include <cstdint>

#include "attention/cuda/kernels/stage.cuh"
#include "attention/cuda/kernels/stage_barriers.cuh"
#include "attention/cuda/kernels/unit_result.cuh"
#include "common/cuda/convert.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

template <int kCount>
static __device__ __forceinline__ void widen_all(const Vec<float, kCount>& from,
                                                 float (&to)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = from.elems[i];
}

template <int kCount>
static __device__ __forceinline__ void widen_all(const Vec<half_t, kCount>& from,
                                                 float (&to)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = widen(from.elems[i]);
}

template <int kCount>
static __device__ __forceinline__ void widen_all(const Vec<bfloat16_t, kCount>& from,
                                                 float (&to)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = widen(from.elems[i]);
}

template <class Fp8, int kCount>
  requires(sizeof(Fp8) == 1)
static __device__ __forceinline__ void widen_all(const Vec<Fp8, kCount>& from,
                                                 float (&to)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 2) {
    const float2 pair =
        widen_pair(static_cast<uint16_t>(from.elems[i].bits | from.elems[i + 1].bits << 8), Fp8{});
    to[i] = pair.x;
    to[i + 1] = pair.y;
  }
}

template <class CacheElem, int kHeads>
class FmaEngine {
 public:
  using Cache = CacheElem;
  static constexpr bool kMayBeUnaligned = true;
  static constexpr int kArchitecture = 0;
  static constexpr int kGroups = kMaxGroups;  // at most
  static constexpr int kRegisters = 168;      // of a thread: what two groups have room for

  __device__ FmaEngine(const PagedAttentionParams& p, const AttentionPlan& plan,
                       const StageOffsets& offsets, char* shared)
      : p_(p),
        plan_(plan),
        offsets_(offsets),
        lane_(static_cast<int>(threadIdx.x % 32)),
        dims_(static_cast<int>(p.head_size)),
        queries_(reinterpret_cast<float*>(shared + plan.shared.engine)),
        weights_(reinterpret_cast<float*>(shared + plan.shared.engine_warp +
                                          static_cast<int>(threadIdx.x / 32) *
                                              plan.shared.engine_warp_bytes)),
        scale_(p.scale * (p.k_scale != nullptr ? *p.k_scale : 1.0f) * kLog2E) {}

  // Called by all warps together, after the last unit's rows are stored.
  __device__ __forceinline__ void begin_unit(int64_t seq, const UnitHeads& heads) {
    for (int i = static_cast<int>(threadIdx.x); i < heads.count * dims_; i += plan_.warps * 32) {
      const int head = i / dims_;
      queries_[i] = query(seq * p_.query_seq_stride + (heads.first + head) * p_.query_head_stride +
                          (i - head * dims_));
    }
    // Queries that there are not: anything finite.
    for (int i = heads.count * dims_ + static_cast<int>(threadIdx.x); i < kHeads * dims_;
         i += plan_.warps * 32) {
      queries_[i] = 0.0f;
    }
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kHeads) {
      slopes()[thread] = p_.alibi_slopes != nullptr && thread < heads.count
                             ? p_.alibi_slopes[heads.first + thread] * kLog2E
                             : 0.0f;
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      max_[h] = kNoLogit;
      sum_[h] = 0.0f;
#pragma unroll
      for (int i = 0; i < kDims; ++i) values_[h][i] = 0.0f;
    }
    compute_sync(plan_);
  }

  __device__ __forceinline__ void attend(const Stage& stage) {
    float rescale[kHeads];
    add_weights(stage, rescale);
    __syncwarp();
    if (stage.mask == kAllTokens) {
      add_values<true>(stage, rescale);
    } else {
      add_values<false>(stage, rescale);
    }
  }

  // Rows [first, first + rows) of the unit, for WarpRows, and their states.
  __device__ __forceinline__ void store_rows(int first, int rows, float* to, float2* states) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int row = h - first;
      if (row < 0 || row >= rows) continue;
#pragma unroll
      for (int i = 0; i < kDims; ++i) {
        const int dim = lane_ + 32 * i;
        if (dim < dims_) to[WarpRows::at(row, dim, dims_)] = values_[h][i];
      }
      float sum = sum_[h];
#pragma unroll
      for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
      if (lane_ == 0) states[h] = {max_[h], sum};
    }
  }

 private:
  static constexpr int kDims = 8;  // of a lane: head sizes up to 256
  // Elements of a key that a lane loads at once, and of a value: consecutive tokens.
  static constexpr int kKeyElems = sizeof(Cache) == 4 ? 4 : 8;
  static constexpr int kValueTokens = sizeof(Cache) == 4 ? 4 : 8;

  __device__ __forceinline__ float* slopes() const { return queries_ + kHeads * dims_; }

  __device__ __forceinline__ float query(int64_t at) const {
    switch (p_.query_dtype) {
      case DType::kHalf:
        return widen(static_cast<const half_t*>(p_.query)[at]);
      case DType::kBFloat16:
        return widen(static_cast<const bfloat16_t*>(p_.query)[at]);
      default:
        return static_cast<const float*>(p_.query)[at];
    }
  }

  // Keys lie in pieces of x elements; with x = 16 a lane's 8 elements are half of one.
  __device__ __forceinline__ const Cache* key_elems(const char* keys, int token, int i) const {
    const int x = static_cast<int>(p_.x);
    const int elem = i * kKeyElems;
    const int piece = x == kKeyElems ? i : elem / x;
    const int within = token % kOctet * x + (elem - piece * x);
    return reinterpret_cast<const Cache*>(keys + token / kOctet * offsets_.key_octet +
                                          piece * plan_.shared.stage.key_pitch) +
           within;
  }

  static constexpr int kPieces = kWarpTokens / kValueTokens;

  // Of some tokens' values, from the first token's.
  __device__ __forceinline__ int value_offset(int piece) const {
    const int octet = piece * kValueTokens / kOctet;
    return octet * offsets_.value_octet +
           piece % (kOctet / kValueTokens) * plan_.shared.stage.value_piece;
  }

  // The logits of 16 tokens, as weights relative to the new maximum, to shared memory.
  __device__ __forceinline__ void add_weights(const Stage& stage, float (&rescale)[kHeads]) {
    const int token = lane_ % kWarpTokens;
    float dots[kHeads] = {};
#pragma unroll 2
    for (int i = lane_ / kWarpTokens; i * kKeyElems < dims_; i += 2) {
      float key[kKeyElems];
      widen_all(load_vec<kKeyElems>(key_elems(stage.keys, token, i)), key);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
#pragma unroll
        for (int e = 0; e < kKeyElems; e += 4) {
          const float4 q =
              *reinterpret_cast<const float4*>(queries_ + h * dims_ + i * kKeyElems + e);
          dots[h] += key[e] * q.x;
          dots[h] += key[e + 1] * q.y;
          dots[h] += key[e + 2] * q.z;
          dots[h] += key[e + 3] * q.w;
        }
      }
    }
    const bool is_token = (stage.mask >> token & 1u) != 0;
    const float distance = static_cast<float>(stage.distance + token);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      // Never fused with what follows: a slope of 0 changes no bit.
      float logit = __fmul_rn(dots[h] + __shfl_xor_sync(~0u, dots[h], 16), scale_);
      if (p_.alibi_slopes != nullptr) logit = __fmaf_rn(distance, slopes()[h], logit);
      if (!is_token) logit = -INFINITY;
      // A NaN is no maximum; it reaches the result through the sum.
      float largest = fmaxf(logit, max_[h]);
#pragma unroll
      for (int step = 8; step > 0; step /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
      }
      rescale[h] = exp2f(max_[h] - largest);
      max_[h] = largest;
      const float weight = exp2f(logit - largest);
      sum_[h] = sum_[h] * rescale[h] + weight;
      if (lane_ < kWarpTokens) weights_[h * kWarpTokens + token] = weight;
    }
  }

  // kIsWhole: all tokens are there. The others' values may be anything: 0 times NaN is not 0.
  template <bool kIsWhole>
  __device__ __forceinline__ void add_values(const Stage& stage, const float (&rescale)[kHeads]) {
#pragma unroll
    for (int i = 0; i < kDims; ++i) {
      const int dim = lane_ + 32 * i;
      if (dim >= dims_) continue;
#pragma unroll
      for (int h = 0; h < kHeads; ++h) values_[h][i] *= rescale[h];
#pragma unroll
      for (int step = 0; step < kPieces; ++step) {
        // Lanes begin with different pieces: rows of a page are so short that the same piece of
        // several would lie in the same banks.
        const int piece = (step + lane_ * kPieces / 8) % kPieces;
        float value[kValueTokens];
        widen_all(load_vec<kValueTokens>(reinterpret_cast<const Cache*>(
                      stage.values + value_offset(piece) + dim * plan_.shared.stage.value_pitch)),
                  value);
        if constexpr (!kIsWhole) {
#pragma unroll
          for (int t = 0; t < kValueTokens; ++t) {
            if ((stage.mask >> (piece * kValueTokens + t) & 1u) == 0) value[t] = 0.0f;
          }
        }
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
#pragma unroll
          for (int t = 0; t < kValueTokens; t += 4) {
            const float4 weight = *reinterpret_cast<const float4*>(weights_ + h * kWarpTokens +
                                                                   piece * kValueTokens + t);
            values_[h][i] += weight.x * value[t];
            values_[h][i] += weight.y * value[t + 1];
            values_[h][i] += weight.z * value[t + 2];
            values_[h][i] += weight.w * value[t + 3];
          }
        }
      }
    }
  }

  const PagedAttentionParams& p_;
  const AttentionPlan& plan_;
  const StageOffsets& offsets_;
  int lane_;
  int dims_;
  float* queries_;  // [kHeads][head_size], then slopes [kHeads]
  float* weights_;  // [kHeads][16], of the warp
  float scale_;
  float max_[kHeads];
  float sum_[kHeads];  // of the lane's token
  float values_[kHeads][kDims];
};

}  // namespace kvops::kernels
