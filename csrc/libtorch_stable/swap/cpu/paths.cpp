// What the calling thread wants of swaps, and which paths its last one took. See swap/paths.h.
// Called by the swaps of both devices, and by kvops/swap through the C functions below.
#include "swap/paths.h"

#include <cstdlib>
#include <cstring>

#define KVOPS_EXPORT extern "C" __attribute__((visibility("default")))

namespace kvops {
namespace {

// Enough for the link to be full on PCIe 5, and 3 % of an H200.
constexpr int kDefaultMaxSms = 4;
constexpr int kMostSms = 1024;

struct NamedPaths {
  const char* name;
  unsigned paths;
};
// The first is what a thread gets that asks for nothing.
constexpr NamedPaths kChoices[] = {
    {"auto", kSwapAnyPath}, {"dma", kSwapByDriver},  {"kernel", kSwapKernel},
    {"batch", kSwapBatch},  {"single", kSwapSingle}, {"strided", kSwapStrided},
};
constexpr NamedPaths kTaken[] = {
    {"host", kSwapHost},     {"kernel", kSwapKernel},   {"batch", kSwapBatch},
    {"single", kSwapSingle}, {"strided", kSwapStrided},
};

const NamedPaths* choice_named(const char* name) {
  for (const NamedPaths& choice : kChoices) {
    if (name != nullptr && std::strcmp(choice.name, name) == 0) return &choice;
  }
  return nullptr;
}

const NamedPaths& choice_of_environment() {
  static const NamedPaths* const choice = choice_named(std::getenv("KVOPS_SWAP_PATH"));
  return choice != nullptr ? *choice : kChoices[0];
}

int max_sms_of_environment() {
  static const int number = [] {
    const char* text = std::getenv("KVOPS_SWAP_MAX_SMS");
    const int wanted = text != nullptr ? std::atoi(text) : 0;
    return wanted > 0 && wanted <= kMostSms ? wanted : kDefaultMaxSms;
  }();
  return number;
}

// initial-exec: no call into the dynamic loader, hence no DT_NEEDED on it.
__attribute__((tls_model("initial-exec"))) thread_local const NamedPaths* wanted = nullptr;
__attribute__((tls_model("initial-exec"))) thread_local int wanted_max_sms = 0;
__attribute__((tls_model("initial-exec"))) thread_local unsigned last = 0;

}  // namespace

SwapWishes swap_wishes() {
  return {.paths = (wanted != nullptr ? *wanted : choice_of_environment()).paths,
          .max_sms = wanted_max_sms > 0 ? wanted_max_sms : max_sms_of_environment()};
}

void note_swap_paths(unsigned paths) { last = paths; }

}  // namespace kvops

// The index-th path's name if the thread's last swap used it, else ""; null past the end.
KVOPS_EXPORT const char* kvops_swap_last_path(unsigned index) {
  if (index >= sizeof(kvops::kTaken) / sizeof(kvops::kTaken[0])) return nullptr;
  return (kvops::last & kvops::kTaken[index].paths) != 0 ? kvops::kTaken[index].name : "";
}

// What the thread wants now: by its own wish, or the environment's.
KVOPS_EXPORT const char* kvops_swap_wanted_path() {
  return (kvops::wanted != nullptr ? *kvops::wanted : kvops::choice_of_environment()).name;
}
KVOPS_EXPORT int kvops_swap_max_sms() { return kvops::swap_wishes().max_sms; }

// Sets what the thread wants by name, null for what the environment says; 0 for a name that does
// not exist, which changes nothing. `before` receives what may be set to go back.
KVOPS_EXPORT int kvops_swap_use_path(const char* name, const char** before) {
  const kvops::NamedPaths* choice = kvops::choice_named(name);
  if (name != nullptr && choice == nullptr) return 0;
  *before = kvops::wanted != nullptr ? kvops::wanted->name : nullptr;
  kvops::wanted = choice;
  return 1;
}

// Likewise; 0 is for what the environment says, -1 is returned for a number that cannot be.
KVOPS_EXPORT int kvops_swap_use_max_sms(int number) {
  if (number < 0 || number > kvops::kMostSms) return -1;
  const int before = kvops::wanted_max_sms;
  kvops::wanted_max_sms = number;
  return before;
}
