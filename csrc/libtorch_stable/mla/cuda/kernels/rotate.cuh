// Rotates pairs (x, y) by (cos, sin) in place: x' = x cos - y sin, y' = y cos + x sin, some pairs
// of a row at a time. Used by rope_fused. Rounds as the CPU does; any NaN comes out as the positive
// quiet one, which the hardware makes.
#pragma once

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

// cos_sin.x are the cosines, cos_sin.y the sines.
template <class T, int kCount>
__device__ __forceinline__ void rotate_pairs(Pairs<T, kCount>& pairs,
                                             const Pairs<T, kCount>& cos_sin) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    rotate_pair(pairs.x.elems[i], pairs.y.elems[i], cos_sin.x.elems[i], cos_sin.y.elems[i]);
  }
}

}  // namespace kvops::kernels
