// Rotates pairs (x, y) by (cos, sin) in place: x' = x cos - y sin, y' = y cos + x sin, some pairs
// of a row at a time. Used by rope_fused. Rounds as the CPU does; any NaN comes out as the positive
// quiet one, which the hardware makes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "common/cuda/convert.cuh"
#include "common/cuda/vec.cuh"

namespace kvops::kernels {

// Pairs that one thread moves of a row at once: two accesses of 8 bytes, or one of 16 if they are
// interleaved. Wider ones would need too many registers. Else single elements.
template <class T, bool kWide>
inline constexpr int kPairsAtOnce = kWide ? 8 / static_cast<int>(sizeof(T)) : 1;

template <class T, int kCount>
struct Pairs {
  Vec<T, kCount> x;
  Vec<T, kCount> y;
};

// The same elements as they were read.
template <class T, int kCount>
struct PackedPairs {
  Packed<T, kCount> front;
  Packed<T, kCount> back;
};

// Pairs first .. first + kCount - 1 of the row's `pairs`: elements (i, i + pairs) if kNeox, else
// (2 i, 2 i + 1).
template <bool kNeox, int kCount, class T>
__device__ __forceinline__ PackedPairs<T, kCount> read_pairs(const T* row, int64_t pairs,
                                                             int64_t first) {
  if constexpr (kNeox) {
    return {load_packed<kCount>(row + first), load_packed<kCount>(row + pairs + first)};
  } else if constexpr (kCount == 1) {
    return {load_packed<1>(row + 2 * first), load_packed<1>(row + 2 * first + 1)};
  } else {
    return __builtin_bit_cast(PackedPairs<T, kCount>, load_packed<2 * kCount>(row + 2 * first));
  }
}

template <bool kNeox, class T, int kCount>
__device__ __forceinline__ Pairs<T, kCount> unpack_pairs(const PackedPairs<T, kCount>& packed) {
  if constexpr (kNeox || kCount == 1) {
    return __builtin_bit_cast(Pairs<T, kCount>, packed);
  } else {
    const auto both = __builtin_bit_cast(Vec<T, 2 * kCount>, packed);
    Pairs<T, kCount> out;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      out.x.elems[i] = both.elems[2 * i];
      out.y.elems[i] = both.elems[2 * i + 1];
    }
    return out;
  }
}

template <bool kNeox, int kCount, class T>
__device__ __forceinline__ Pairs<T, kCount> load_pairs(const T* row, int64_t pairs, int64_t first) {
  return unpack_pairs<kNeox, T, kCount>(read_pairs<kNeox, kCount>(row, pairs, first));
}

template <bool kNeox, int kCount, class T>
__device__ __forceinline__ void store_pairs(T* row, int64_t pairs, int64_t first,
                                            const Pairs<T, kCount>& in) {
  if constexpr (kNeox) {
    store_vec(row + first, in.x);
    store_vec(row + pairs + first, in.y);
  } else if constexpr (kCount == 1) {
    row[2 * first] = in.x.elems[0];
    row[2 * first + 1] = in.y.elems[0];
  } else {
    Vec<T, 2 * kCount> both;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      both.elems[2 * i] = in.x.elems[i];
      both.elems[2 * i + 1] = in.y.elems[i];
    }
    store_vec(row + 2 * first, both);
  }
}

// 16-bit formats round after every operation. Computing in float first does not round twice: it
// has more than twice their precision.
template <class T>
__device__ __forceinline__ void rotate_pair(T& x, T& y, T cos, T sin) {
  const auto rounded_product = [](T a, T b) {
    return widen(narrow_as(__fmul_rn(widen(a), widen(b)), T{}));
  };
  const float x_cos = rounded_product(x, cos);
  const float y_sin = rounded_product(y, sin);
  const float y_cos = rounded_product(y, cos);
  const float x_sin = rounded_product(x, sin);
  x = narrow_as(__fsub_rn(x_cos, y_sin), T{});
  y = narrow_as(__fadd_rn(y_cos, x_sin), T{});
}

// float: the product with x is fused both times.
__device__ __forceinline__ void rotate_pair(float& x, float& y, float cos, float sin) {
  const float new_x = __fmaf_rn(x, cos, -__fmul_rn(y, sin));
  y = __fmaf_rn(x, sin, __fmul_rn(y, cos));
  x = new_x;
}

template <class T>
struct NativePair;
template <>
struct NativePair<half_t> {
  using Type = __half2;
  using Raw = __half2_raw;
};
template <>
struct NativePair<bfloat16_t> {
  using Type = __nv_bfloat162;
  using Raw = __nv_bfloat162_raw;
};

// Two pairs in each word, by operations of the format itself, which round as often; _rn keeps
// compilers from fusing them.
template <class T>
__device__ __forceinline__ void rotate_words(uint32_t& x, uint32_t& y, uint32_t cos, uint32_t sin) {
  using Native = typename NativePair<T>::Type;
  using Raw = typename NativePair<T>::Raw;
  const auto product = [](uint32_t a, uint32_t b) {
    return __hmul2_rn(Native(__builtin_bit_cast(Raw, a)), Native(__builtin_bit_cast(Raw, b)));
  };
  const Native new_x = __hsub2_rn(product(x, cos), product(y, sin));
  const Native new_y = __hadd2_rn(product(y, cos), product(x, sin));
  x = __builtin_bit_cast(uint32_t, static_cast<Raw>(new_x));
  y = __builtin_bit_cast(uint32_t, static_cast<Raw>(new_y));
}

// cos_sin.x are the cosines, cos_sin.y the sines.
template <class T, int kCount>
__device__ __forceinline__ void rotate_pairs(Pairs<T, kCount>& pairs,
                                             const Pairs<T, kCount>& cos_sin) {
  if constexpr (sizeof(T) == 2 && kCount % 2 == 0) {
    using Words = Pairs<uint32_t, kCount / 2>;
    auto words = __builtin_bit_cast(Words, pairs);
    const auto factors = __builtin_bit_cast(Words, cos_sin);
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      rotate_words<T>(words.x.elems[i], words.y.elems[i], factors.x.elems[i], factors.y.elems[i]);
    }
    pairs = __builtin_bit_cast(Pairs<T, kCount>, words);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      rotate_pair(pairs.x.elems[i], pairs.y.elems[i], cos_sin.x.elems[i], cos_sin.y.elems[i]);
    }
  }
}

}  // namespace kvops::kernels
