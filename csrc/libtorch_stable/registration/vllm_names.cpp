// Claims one of vLLM's names (_C_cache_ops::<op>, _C::<op>): schema and CPU kernel.
// Called from kvops/_vllm_names.py, which has checked that nobody else defined the name.
// What STABLE_TORCH_LIBRARY_FRAGMENT and _IMPL expand to, at a time of our choosing: a second
// definition by another library ends the process, so names are not taken while loading.
#include <cstring>
#include <exception>
#include <string>

#include "common/stable.h"
#include "registration/cpu.h"
#include "registration/schemas.h"

namespace {

using Library = torch::stable::detail::StableLibrary;

void claim(const kvops::OperatorSchema& op, const kvops::Kernel& kernel) {
  const char* arguments = op.vllm_arguments ? op.vllm_arguments : op.arguments;
  // Never deleted: deleting a library object takes its registrations back.
  auto* fragment =
      new Library(Library::Kind::FRAGMENT, op.vllm_namespace, nullptr, __FILE__, __LINE__);
  fragment->def((std::string(op.name) + "(" + arguments + ") -> ()").c_str());
  auto* cpu = new Library(Library::Kind::IMPL, op.vllm_namespace, "CPU", __FILE__, __LINE__);
  cpu->impl(op.name, kernel.boxed);
}

}  // namespace

// Returns 1 if the name was claimed, 0 if there is no such operator or torch refused it.
extern "C" __attribute__((visibility("default"))) int kvops_claim_vllm_name(const char* name) {
  for (const kvops::OperatorSchema& op : kvops::kOperators) {
    const kvops::Kernel* kernel = kvops::cpu_kernel(op.name);
    if (kernel == nullptr || std::strcmp(op.name, name) != 0) continue;
    try {
      claim(op, *kernel);
      return 1;
    } catch (const std::exception&) {
      return 0;
    }
  }
  return 0;
}
