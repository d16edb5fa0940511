// The flag of checked mode. See checked_mode.h.
// Set by kvops.checked() in the calling thread; read by operators in the same thread.
// KVOPS_CHECKED=1 switches it on in every thread from the start.
#include "common/checked_mode.h"

#include <cstdlib>
#include <cstring>

namespace kvops {
namespace {

bool checked_by_environment() {
  const char* value = std::getenv("KVOPS_CHECKED");
  return value != nullptr && std::strcmp(value, "") != 0 && std::strcmp(value, "0") != 0;
}

// initial-exec: no call into the dynamic loader, hence no DT_NEEDED on it.
__attribute__((tls_model("initial-exec"))) thread_local int depth = 0;

}  // namespace

bool checked_mode() {
  static const bool always = checked_by_environment();
  return always || depth > 0;
}

void set_checked_mode(bool on) { depth += on ? 1 : -1; }

}  // namespace kvops
