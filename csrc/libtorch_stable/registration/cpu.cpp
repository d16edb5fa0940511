// The CPU kernel of every operator, one line each, and their registration as kvops::<op>.
// Runs when _C is loaded.
// TORCH_BOX turns a typed function into the boxed form of the stable ABI.
#include "registration/cpu.h"

#include "mla/ops.h"

namespace kvops {
namespace {

constexpr Kernel kCpuKernels[] = {
    {"concat_mla_q", TORCH_BOX(&cpu::concat_mla_q)},
};

}  // namespace

const Kernel* cpu_kernel(const char* name) { return find_kernel(kCpuKernels, name); }

}  // namespace kvops

STABLE_TORCH_LIBRARY_IMPL(kvops, CPU, m) {
  for (const kvops::Kernel& kernel : kvops::kCpuKernels) m.impl(kernel.name, kernel.boxed);
}
