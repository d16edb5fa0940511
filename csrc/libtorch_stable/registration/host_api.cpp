// Plain C functions of _C for kvops/_native.py: build information, SIMD level, checked mode.
// Called through ctypes in the thread that asks; none of them throws or touches Python.
// kvops_host_api hands _C_cuda what it shares with _C: the two do not link to each other.
#include "common/host_api.h"
#include "common/checked_mode.h"
#include "common/isa.h"
#include "registration/schemas.h"
#include "swap/paths.h"

#define KVOPS_EXPORT extern "C" __attribute__((visibility("default")))

KVOPS_EXPORT const char* kvops_version() { return KVOPS_VERSION; }
KVOPS_EXPORT const char* kvops_build() { return KVOPS_BUILD; }
KVOPS_EXPORT const char* kvops_simd() { return kvops::cpu::isa_name(); }
KVOPS_EXPORT void kvops_set_checked(int on) { kvops::set_checked_mode(on != 0); }
KVOPS_EXPORT int kvops_checked() { return kvops::checked_mode() ? 1 : 0; }

// Walks the operator list: the index-th operator's name and its peer's namespace; 0 past the end.
KVOPS_EXPORT int kvops_operator(int index, const char** name, const char** peer_namespace) {
  constexpr int kCount = sizeof(kvops::kOperators) / sizeof(kvops::kOperators[0]);
  if (index < 0 || index >= kCount) return 0;
  *name = kvops::kOperators[index].name;
  *peer_namespace = kvops::kOperators[index].peer_namespace;
  return 1;
}

KVOPS_EXPORT const kvops::HostApi* kvops_host_api() {
  static const kvops::HostApi api{
      .checked_mode = &kvops::checked_mode,
      .set_swap_on_devices = &kvops::cpu::set_swap_on_devices,
      .swap_wishes = &kvops::swap_wishes,
      .note_swap_paths = &kvops::note_swap_paths,
  };
  return &api;
}
