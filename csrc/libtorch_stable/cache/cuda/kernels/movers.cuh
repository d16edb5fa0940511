// Movers: what happens to a few neighbouring elements on their way from one tensor to another.
// Template arguments of the cache kernels, which decide where elements come from and go to.
// Same bytes as cache/cpu/kernels/rows.cpp: stored values are divided, loaded ones multiplied.
#pragma once

#include <cstdint>

#include "cache/params.h"
#include "common/cuda/convert.cuh"
#include "common/cuda/fp8_quotient.cuh"
#include "common/cuda/vec.cuh"
#include "common/dtype.h"

namespace kvops::kernels {

// Elements as they are, whatever the scale.
template <class Element, int kCount>
struct Copier {
  using Source = Element;
  using Stored = Element;
  static constexpr int kElems = kCount;
  static constexpr bool kScales = false;
  using In = Packed<Element, kCount>;
  using Out = In;

  __device__ explicit Copier(float /*scale*/) {}
  __device__ __forceinline__ Out operator()(const In& in) const { return in; }
};

// To fp8 bytes.
template <class Src, class Fp8, int kCount>
struct Quantizer {
  using Source = Src;
  using Stored = Fp8;
  static constexpr int kElems = kCount;
  static constexpr bool kScales = true;
  using In = Packed<Src, kCount>;
  using Out = Packed<Fp8, kCount>;

  __device__ explicit Quantizer(float scale) : quotient(scale) {}
  __device__ __forceinline__ Out operator()(const In& in) const {
    return quotient.template divide<Fp8, Src, kCount>(in);
  }

  Fp8Quotient quotient;
};

// From e4m3 bytes.
template <class Dst, int kCount>
struct Dequantizer {
  using Source = e4m3_t;
  using Stored = Dst;
  static constexpr int kElems = kCount;
  static constexpr bool kScales = true;
  using In = Packed<e4m3_t, kCount>;
  using Out = Packed<Dst, kCount>;

  __device__ explicit Dequantizer(float scale) : factor(scale) {}
  __device__ __forceinline__ Out operator()(const In& in) const {
    Elems<Dst, kCount> stored;
    if constexpr (kCount == 1) {
      stored.of[0] = narrow_as(__fmul_rn(widen_pair(in, e4m3_t{}).x, factor), Dst{});
    } else {
      const auto pairs = __builtin_bit_cast(Elems<uint16_t, kCount / 2>, in);
#pragma unroll
      for (int i = 0; i < kCount / 2; ++i) {
        const float2 wide = widen_pair(pairs.of[i], e4m3_t{});
        stored.of[2 * i] = narrow_as(__fmul_rn(wide.x, factor), Dst{});
        stored.of[2 * i + 1] = narrow_as(__fmul_rn(wide.y, factor), Dst{});
      }
    }
    return __builtin_bit_cast(Out, stored);
  }

  float factor;
};

inline constexpr int kWideElems = 8;  // of fp8 in one unit: 16 bytes of the other side, or 32

// As many as make 32 bytes of the other side: more of them share the arithmetic of an address,
// which is what a writer of many tokens takes most instructions for.
template <class Src>
inline constexpr int kWidestElems = 32 / static_cast<int>(sizeof(Src));

inline int element_bytes_of(DType dtype) { return dtype == DType::kFloat ? 4 : 2; }

inline int stored_bytes_of(DType dtype, CacheKind kind) {
  return kind == CacheKind::kAuto ? element_bytes_of(dtype) : 1;
}

// ---- launch(mover) with the mover that the run-time values ask for

// launch(element) with a value of the high-precision type.
template <class Launch>
cudaError_t with_element(DType dtype, const Launch& launch) {
  switch (dtype) {
    case DType::kHalf:
      return launch(half_t{});
    case DType::kBFloat16:
      return launch(bfloat16_t{});
    default:
      return launch(float{});
  }
}

// launch(Src{}, Fp8{}).
template <class Launch>
cudaError_t with_quantized(DType dtype, CacheKind kind, const Launch& launch) {
  return with_element(dtype, [&](auto element) {
    return kind == CacheKind::kFp8E5m2 ? launch(element, e5m2_t{}) : launch(element, e4m3_t{});
  });
}

}  // namespace kvops::kernels
