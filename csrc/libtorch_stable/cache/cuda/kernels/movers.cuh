// Movers: what happens to a few neighbouring elements on their way from one tensor to another.
// Template arguments of the cache kernels, which decide where elements come from and go to.
// Same bytes as cache/cpu/kernels/rows.cpp: stored values are divided, loaded ones multiplied.
#pragma once

#include <cstdint>

#include "cache/params.h"
#include "common/cuda/convert.cuh"
#include "common/cuda/fp8_quotient.cuh"
#include "common/cuda/raw_units.cuh"
#include "common/dtype.h"

namespace kvops::kernels {

// Elements as they are, whatever the scale.
template <class Element, int kCount>
struct Copier {
  using Source = Element;
  using Stored = Element;
  static constexpr int kElems = kCount;
  static constexpr bool kScales = false;
  using In = Raw<kCount * sizeof(Element)>;
  using Out = In;

  static __device__ __forceinline__ Out convert(const In& in, float /*scale*/) { return in; }
};

// To fp8 bytes.
template <class Src, class Fp8, int kCount>
struct Quantizer {
  using Source = Src;
  using Stored = Fp8;
  static constexpr int kElems = kCount;
  static constexpr bool kScales = true;
  using In = Raw<kCount * sizeof(Src)>;
  using Out = Raw<kCount>;

  static __device__ __forceinline__ Out convert(const In& in, float scale) {
    struct Elems {
      Src of[kCount];
    };
    struct Stores {
      Fp8 of[kCount];
    };
    const Elems elems = __builtin_bit_cast(Elems, in);
    float wide[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) wide[i] = widen(elems.of[i]);
    Stores stored;
    Fp8Quotient(scale).divide(wide, stored.of);
    return __builtin_bit_cast(Out, stored);
  }
};

// From e4m3 bytes.
template <class Dst, int kCount>
struct Dequantizer {
  using Source = e4m3_t;
  using Stored = Dst;
  static constexpr int kElems = kCount;
  static constexpr bool kScales = true;
  using In = Raw<kCount>;
  using Out = Raw<kCount * sizeof(Dst)>;

  static __device__ __forceinline__ Out convert(const In& in, float scale) {
    struct Stores {
      Dst of[kCount];
    };
    Stores stored;
    if constexpr (kCount == 1) {
      stored.of[0] = narrow_as(__fmul_rn(widen_pair(in, e4m3_t{}).x, scale), Dst{});
    } else {
      struct Pairs {
        uint16_t of[kCount / 2];
      };
      const Pairs pairs = __builtin_bit_cast(Pairs, in);
#pragma unroll
      for (int i = 0; i < kCount / 2; ++i) {
        const float2 wide = widen_pair(pairs.of[i], e4m3_t{});
        stored.of[2 * i] = narrow_as(__fmul_rn(wide.x, scale), Dst{});
        stored.of[2 * i + 1] = narrow_as(__fmul_rn(wide.y, scale), Dst{});
      }
    }
    return __builtin_bit_cast(Out, stored);
  }
};

inline constexpr int kWideElems = 8;  // of fp8 in one unit: 16 bytes of the other side, or 32

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

template <int kCount, class Launch>
cudaError_t with_quantizer(DType dtype, CacheKind kind, const Launch& launch) {
  return with_element(dtype, [&](auto element) {
    using Src = decltype(element);
    return kind == CacheKind::kFp8E5m2 ? launch(Quantizer<Src, e5m2_t, kCount>{})
                                       : launch(Quantizer<Src, e4m3_t, kCount>{});
  });
}

}  // namespace kvops::kernels
