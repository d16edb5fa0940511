// The SIMD level of this machine, and how kernels are chosen by it.
// CPU kernels live in <capability>/cpu/kernels/*.cpp, each compiled once per level into its own
// namespace kvops::cpu::<level>, and publish one table of function pointers per capability.
// Kernel files and the headers they include define nothing with external linkage but that table.
#pragma once

// Within kernel files: the namespace of the level being compiled.
#if !defined(KVOPS_ISA)
#define KVOPS_ISA baseline
#endif

namespace kvops::cpu {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// Decided once: the best level that processor and operating system support, or $KVOPS_SIMD
// ("baseline", "avx2", "avx512") if that is lower.
Isa isa();
const char* isa_name();

}  // namespace kvops::cpu

// Declares `const Table& <name>()`, which returns the table of the level in use.
#if defined(KVOPS_ONLY_BASELINE)
#define KVOPS_DECLARE_KERNELS(Table, name)                      \
  namespace kvops::cpu::baseline {                              \
  extern const Table name##_table;                              \
  }                                                             \
  namespace kvops::cpu {                                        \
  inline const Table& name() { return baseline::name##_table; } \
  }
#else
#define KVOPS_DECLARE_KERNELS(Table, name) \
  namespace kvops::cpu::baseline {         \
  extern const Table name##_table;         \
  }                                        \
  namespace kvops::cpu::avx2 {             \
  extern const Table name##_table;         \
  }                                        \
  namespace kvops::cpu::avx512 {           \
  extern const Table name##_table;         \
  }                                        \
  namespace kvops::cpu {                   \
  static inline const Table& name() {      \
    switch (isa()) {                       \
      case Isa::kAvx512:                   \
        return avx512::name##_table;       \
      case Isa::kAvx2:                     \
        return avx2::name##_table;         \
      default:                             \
        return baseline::name##_table;     \
    }                                      \
  }                                        \
  }
#endif
