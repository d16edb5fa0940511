// Bit-exact conversions between float and half, bfloat16, float8 (e4m3fn, e5m2), in integer
// arithmetic. Used by CPU kernels of every SIMD level and by CUDA kernels: all give equal bytes.
// Round to nearest even; any NaN becomes the positive quiet NaN; float8 saturates (spec 4.3, 4.4).
//
// Branch-free, so that compilers vectorise the loops around them. Internal linkage (`static`):
// each SIMD level must keep its own copy, a shared inline function would leak AVX-512 code.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define KVOPS_HOST_DEVICE __host__ __device__
#else
#define KVOPS_HOST_DEVICE
#endif

namespace kvops {

// Storage types of the 16- and 8-bit formats: distinct types, so that templates can tell them.
struct half_t {
  uint16_t bits;
};
struct bfloat16_t {
  uint16_t bits;
};
struct e4m3_t {
  uint8_t bits;
};
struct e5m2_t {
  uint8_t bits;
};

KVOPS_HOST_DEVICE static inline uint32_t float_bits(float x) {
  return __builtin_bit_cast(uint32_t, x);
}
KVOPS_HOST_DEVICE static inline float bits_float(uint32_t x) {
  return __builtin_bit_cast(float, x);
}

// ---- to float: all exact

KVOPS_HOST_DEVICE static inline float to_float(float x) { return x; }

KVOPS_HOST_DEVICE static inline float to_float(bfloat16_t x) {
  return bits_float(static_cast<uint32_t>(x.bits) << 16);
}

KVOPS_HOST_DEVICE static inline float to_float(half_t x) {
  const uint32_t magnitude = (x.bits & 0x7fffu) << 13;
  const uint32_t sign = (x.bits & 0x8000u) << 16;
  const uint32_t normal = magnitude + (112u << 23);
  // Subnormals: 1.m * 2^-14 - 2^-14 is exact and renormalises.
  const float subnormal = bits_float(magnitude + (113u << 23)) - bits_float(113u << 23);
  const uint32_t exponent = magnitude & (31u << 23);
  uint32_t bits = exponent == 0 ? float_bits(subnormal) : normal;
  bits = exponent == (31u << 23) ? magnitude + (224u << 23) : bits;
  return bits_float(bits | sign);
}

// NaN bytes of either sign give the positive quiet NaN.
KVOPS_HOST_DEVICE static inline float to_float(e4m3_t x) {
  const uint32_t magnitude = (x.bits & 0x7fu) << 20;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x80u) << 24;
  const float subnormal = bits_float(magnitude + (121u << 23)) - bits_float(121u << 23);
  const uint32_t finite = magnitude < (1u << 23) ? float_bits(subnormal) : magnitude + (120u << 23);
  return bits_float(magnitude == (0x7fu << 20) ? 0x7fffffffu : finite | sign);
}

KVOPS_HOST_DEVICE static inline float to_float(e5m2_t x) {
  const uint32_t magnitude = (x.bits & 0x7fu) << 21;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x80u) << 24;
  const float subnormal = bits_float(magnitude + (113u << 23)) - bits_float(113u << 23);
  uint32_t bits = magnitude < (1u << 23) ? float_bits(subnormal) : magnitude + (112u << 23);
  bits = magnitude == (0x7cu << 21) ? 0x7f800000u : bits;
  return bits_float(magnitude > (0x7cu << 21) ? 0x7fffffffu : bits | sign);
}

// ---- from float

// Rounds the magnitude (sign cleared, finite, normal in the target) to `kDropped` fewer bits.
template <int kDropped>
KVOPS_HOST_DEVICE static inline uint32_t round_magnitude(uint32_t magnitude) {
  const uint32_t odd = (magnitude >> kDropped) & 1u;
  return (magnitude + ((1u << (kDropped - 1)) - 1u) + odd) >> kDropped;
}

// Rounds a magnitude that is subnormal in the target to a multiple of 2^kUlpExponent: adding
// 2^(kUlpExponent + 23) leaves the multiple, rounded to nearest even, in the low bits.
template <int kUlpExponent>
KVOPS_HOST_DEVICE static inline uint32_t round_subnormal(uint32_t magnitude) {
  constexpr uint32_t kMagic = static_cast<uint32_t>(127 + 23 + kUlpExponent) << 23;
  return float_bits(bits_float(magnitude) + bits_float(kMagic)) - kMagic;
}

// narrow(x, T{}): one overload per type; the second argument only selects it.

KVOPS_HOST_DEVICE static inline float narrow(float x, float) { return x; }

KVOPS_HOST_DEVICE static inline bfloat16_t narrow(float x, bfloat16_t) {
  const uint32_t bits = float_bits(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return {static_cast<uint16_t>(is_nan ? 0x7fffu : rounded)};
}

KVOPS_HOST_DEVICE static inline half_t narrow(float x, half_t) {
  const uint32_t bits = float_bits(x);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t sign = (bits >> 16) & 0x8000u;
  uint32_t out = magnitude < (113u << 23) ? round_subnormal<-24>(magnitude)
                                          : round_magnitude<13>(magnitude) - (112u << 10);
  out = magnitude >= 0x477ff000u ? 0x7c00u : out;  // 65520 and above round to infinity
  out |= sign;
  return {static_cast<uint16_t>(magnitude > 0x7f800000u ? 0x7fffu : out)};
}

KVOPS_HOST_DEVICE static inline e4m3_t narrow(float x, e4m3_t) {
  const uint32_t bits = float_bits(x);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t sign = (bits >> 24) & 0x80u;
  const uint32_t clamped = magnitude < 0x43e00000u ? magnitude : 0x43e00000u;  // 448
  const uint32_t out = clamped < (121u << 23) ? round_subnormal<-9>(clamped)
                                              : round_magnitude<20>(clamped) - (120u << 3);
  return {static_cast<uint8_t>(magnitude > 0x7f800000u ? 0x7fu : out | sign)};
}

KVOPS_HOST_DEVICE static inline e5m2_t narrow(float x, e5m2_t) {
  const uint32_t bits = float_bits(x);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t sign = (bits >> 24) & 0x80u;
  const uint32_t clamped = magnitude < 0x47600000u ? magnitude : 0x47600000u;  // 57344
  const uint32_t out = clamped < (113u << 23) ? round_subnormal<-16>(clamped)
                                              : round_magnitude<21>(clamped) - (112u << 2);
  return {static_cast<uint8_t>(magnitude > 0x7f800000u ? 0x7fu : out | sign)};
}

template <class T>
KVOPS_HOST_DEVICE static inline T from_float(float x) {
  return narrow(x, T{});
}

}  // namespace kvops
