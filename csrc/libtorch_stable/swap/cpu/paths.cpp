// What the calling thread wants of swaps, and which paths its last one took. See swap/paths.h.
// Called by the swaps of both devices, and by kvops/swap.py through the C functions below.
#include "swap/paths.h"

#include <cstring>

#define KVOPS_EXPORT extern "C" __attribute__((visibility("default")))

namespace kvops {
namespace {

// initial-exec: no call into the dynamic loader, hence no DT_NEEDED on it.
__attribute__((tls_model("initial-exec"))) thread_local unsigned wanted = 0;
__attribute__((tls_model("initial-exec"))) thread_local unsigned last = 0;

constexpr const char* kNames[] = {"host", "kernel", "batch", "single"};
constexpr unsigned kNumPaths = sizeof(kNames) / sizeof(kNames[0]);

}  // namespace

unsigned wanted_swap_path() { return wanted; }
void note_swap_paths(unsigned paths) { last = paths; }

}  // namespace kvops

// The index-th path's name if the thread's last swap used it, else null.
KVOPS_EXPORT const char* kvops_swap_last_path(unsigned index) {
  return index < kvops::kNumPaths && (kvops::last >> index & 1u) != 0 ? kvops::kNames[index]
                                                                      : nullptr;
}

// Sets what the thread wants by name, "auto" for the best; returns what it was, or null for a name
// that does not exist, which changes nothing.
KVOPS_EXPORT const char* kvops_swap_use_path(const char* name) {
  unsigned index = 1;  // a device cannot be told to let the host copy
  while (index < kvops::kNumPaths && std::strcmp(kvops::kNames[index], name) != 0) ++index;
  if (index == kvops::kNumPaths && std::strcmp(name, "auto") != 0) return nullptr;
  const char* before = "auto";
  for (unsigned i = 1; i < kvops::kNumPaths; ++i) {
    if (kvops::wanted == 1u << i) before = kvops::kNames[i];
  }
  kvops::wanted = index == kvops::kNumPaths ? 0 : 1u << index;
  return before;
}
