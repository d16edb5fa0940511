// Claims the name that a peer has for an operator (_C::<op>, sgl_kernel::<op>): schema and CPU
// kernel.
// Called from kvops/_peer_names.py, which has checked that nobody else defined the name.
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

// Without the marks of what is written, where the peer has none: "Tensor! dst", "Tensor(a!)[] dst".
std::string letter_of_peer(const kvops::OperatorSchema& op) {
  std::string letter = op.arguments;
  if (!op.peer_hides_writes) return letter;
  for (const std::string mark : {"(a!)", "!"}) {
    for (size_t at; (at = letter.find(mark)) != std::string::npos;) letter.erase(at, mark.size());
  }
  return letter;
}

void claim(const kvops::OperatorSchema& op, const kvops::Kernel& kernel) {
  const std::string arguments = op.peer_arguments ? op.peer_arguments : letter_of_peer(op);
  // Never deleted: deleting a library object takes its registrations back.
  auto* fragment =
      new Library(Library::Kind::FRAGMENT, op.peer_namespace, nullptr, __FILE__, __LINE__);
  fragment->def((std::string(op.name) + "(" + arguments + ") -> ()").c_str());
  auto* cpu = new Library(Library::Kind::IMPL, op.peer_namespace, "CPU", __FILE__, __LINE__);
  cpu->impl(op.name, kernel.boxed);
}

}  // namespace

// Returns 1 if the name was claimed, 0 if there is no such operator or torch refused it.
extern "C" __attribute__((visibility("default"))) int kvops_claim_peer_name(const char* name) {
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
