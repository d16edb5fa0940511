// Division of indices by a number that the host knows: one multiplication instead of some hundred
// instructions. Made by launch functions, passed to kernels by value.
// Numerators must be in [0, end); beyond 2^31 of them it divides as the compiler does.
#pragma once

#include <cstdint>

namespace kvops::kernels {

class Divisor {
 public:
  // A divisor of 0 is taken for 1: there is nothing to divide then.
  Divisor(int64_t divisor, int64_t end)
      : divisor_(divisor > 0 ? divisor : 1), is_narrow_(end <= kNarrowEnd) {
    if (!is_narrow_) return;
    // Below 2^31, dividing by more than that is like dividing by it: 0.
    const uint64_t narrow = static_cast<uint64_t>(divisor_ < kNarrowEnd ? divisor_ : kNarrowEnd);
    while ((uint64_t{1} << shift_) < narrow) ++shift_;
    const uint64_t excess = (uint64_t{1} << shift_) - narrow;
    multiplier_ = static_cast<uint32_t>((excess << 32) / narrow + 1);
  }

#if defined(__CUDACC__)
  __device__ __forceinline__ int64_t quotient(int64_t numerator) const {
    if (!is_narrow_) return numerator / divisor_;
    return narrow_quotient(static_cast<uint32_t>(numerator));
  }

  // Where end is at most 2^31.
  __device__ __forceinline__ uint32_t narrow_quotient(uint32_t numerator) const {
    // multiplier is 2^32 (2^shift / divisor - 1), rounded up; the sum stays below 2^32.
    return (__umulhi(numerator, multiplier_) + numerator) >> shift_;
  }

  __device__ __forceinline__ int64_t remainder(int64_t numerator, int64_t quotient) const {
    return numerator - quotient * divisor_;
  }
#endif

 private:
  static constexpr int64_t kNarrowEnd = int64_t{1} << 31;

  int64_t divisor_;
  uint32_t multiplier_ = 0;
  uint32_t shift_ = 0;
  bool is_narrow_;
};

}  // namespace kvops::kernels
