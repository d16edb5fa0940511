// Division of indices by a number that the host knows: a multiplication instead of some hundred
// instructions. Made by launch functions, passed to kernels by value.
#pragma once

#include <bit>
#include <cstdint>

namespace kvops::kernels {

template <class T>
struct Divided {
  T quotient;
  T remainder;
};

// What divides numerators below 2^(bits - 1) by `divisor`, of as many bits at most: the quotient is
// (numerator * multiplier / 2^bits + numerator) / 2^shift, and the sum stays below 2^bits.
// Twice has twice as many bits.
template <class Twice>
struct Reciprocal {
  static constexpr int kBits = 4 * sizeof(Twice);

  uint64_t multiplier;  // 2^bits (2^shift / divisor - 1), rounded up
  uint32_t shift;

  explicit Reciprocal(uint64_t divisor) : shift(std::bit_width(divisor - 1)) {
    const Twice excess = (Twice{1} << shift) - divisor;
    // Powers of two, of which most are, take no division.
    multiplier = excess == 0 ? 1 : static_cast<uint64_t>((excess << kBits) / divisor + 1);
  }
};

// Of numerators in [0, 2^31).
class NarrowDivisor {
 public:
  static constexpr int64_t kEnd = int64_t{1} << 31;

  // A divisor of 0 is taken for 1: there is nothing to divide then. Dividing by more than 2^31 is
  // like dividing by it.
  explicit NarrowDivisor(int64_t divisor)
      : divisor_(static_cast<uint32_t>(divisor <= 0     ? 1
                                       : divisor < kEnd ? divisor
                                                        : kEnd)) {
    const Reciprocal<uint64_t> reciprocal(divisor_);
    multiplier_ = static_cast<uint32_t>(reciprocal.multiplier);
    shift_ = reciprocal.shift;
  }

#if defined(__CUDACC__)
  __device__ __forceinline__ uint32_t quotient(uint32_t numerator) const {
    return (__umulhi(numerator, multiplier_) + numerator) >> shift_;
  }

  __device__ __forceinline__ Divided<uint32_t> divide(uint32_t numerator) const {
    const uint32_t whole = quotient(numerator);
    return {whole, numerator - whole * divisor_};
  }
#endif

 private:
  uint32_t divisor_;
  uint32_t multiplier_;
  uint32_t shift_;
};

// Of numerators in [0, end): those of a NarrowDivisor if that is enough.
class Divisor {
 public:
  Divisor(int64_t divisor, int64_t end)
      : divisor_(divisor > 0 ? divisor : 1),
        narrow_(divisor),
        is_narrow_(end <= NarrowDivisor::kEnd) {
    if (is_narrow_) return;
    const Reciprocal<unsigned __int128> reciprocal(static_cast<uint64_t>(divisor_));
    multiplier_ = reciprocal.multiplier;
    shift_ = reciprocal.shift;
  }

#if defined(__CUDACC__)
  __device__ __forceinline__ int64_t quotient(int64_t numerator) const {
    const uint64_t wide = static_cast<uint64_t>(numerator);
    if (__builtin_expect(!is_narrow_, false)) {
      return static_cast<int64_t>((__umul64hi(wide, multiplier_) + wide) >> shift_);
    }
    return narrow_.quotient(static_cast<uint32_t>(wide));
  }

  // Where end is at most 2^31.
  __device__ __forceinline__ uint32_t narrow_quotient(uint32_t numerator) const {
    return narrow_.quotient(numerator);
  }

  __device__ __forceinline__ int64_t remainder(int64_t numerator, int64_t quotient) const {
    return numerator - quotient * divisor_;
  }

  __device__ __forceinline__ Divided<int64_t> divide(int64_t numerator) const {
    const int64_t whole = quotient(numerator);
    return {whole, remainder(numerator, whole)};
  }
#endif

 private:
  int64_t divisor_;
  uint64_t multiplier_ = 0;
  NarrowDivisor narrow_;
  uint32_t shift_ = 0;
  bool is_narrow_;
};

}  // namespace kvops::kernels
