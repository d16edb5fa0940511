// Detects the SIMD level once. See isa.h.
// __builtin_cpu_supports also asks the operating system whether it saves the registers.
#include "common/isa.h"

#include <cstdlib>
#include <cstring>

namespace kvops::cpu {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};

Isa supported() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    return Isa::kAvx2;
  }
#endif
  return Isa::kBaseline;
}

Isa decide() {
  const Isa best = supported();
  const char* wish = std::getenv("KVOPS_SIMD");
  for (int level = 0; wish && level <= static_cast<int>(best); ++level) {
    if (std::strcmp(wish, kNames[level]) == 0) return static_cast<Isa>(level);
  }
  return best;
}

}  // namespace

Isa isa() {
  static const Isa decided = decide();
  return decided;
}

const char* isa_name() { return kNames[static_cast<int>(isa())]; }

}  // namespace kvops::cpu
