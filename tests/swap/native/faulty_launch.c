// To be preloaded: kernel launches, of which one fails (fault.h). kvops looks the driver's functions
// up by dlsym, CUDA runtimes, of which one is linked into it, by cuGetProcAddress: these hand out
// ours.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

#include "fault.h"

typedef int (*Launch)(const void*, void*, void**, void**);
typedef int (*GetProcAddress)(const char*, void**, int, uint64_t, void*);
typedef void* (*Dlsym)(void*, const char*);
static Launch real_launch;
static GetProcAddress real_get_proc_address;

static int launch(const void* config, void* function, void** parameters, void** extra) {
  // What the driver refuses, kvops tries again at once, through the runtime.
  static int again = 0;
  const int error = again != 0 ? again : fault("cuLaunchKernelEx");
  again = again != 0 ? 0 : error;
  return error != 0 ? error : real_launch(config, function, parameters, extra);
}

static int get_proc_address(const char* name, void** function, int version, uint64_t flags,
                            void* status) {
  const int error = real_get_proc_address(name, function, version, flags, status);
  if (error != 0 || *function == NULL) return error;
  const int is_per_thread = (flags & 2) != 0;  // CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM
  if (strcmp(name, "cuLaunchKernelEx") == 0 && !is_per_thread) {
    real_launch = (Launch)*function;
    *function = (void*)&launch;
  } else if (strcmp(name, "cuGetProcAddress") == 0 && version >= 12000) {
    // Itself: runtimes ask for all others through what they get here.
    *function = (void*)&get_proc_address;
  }
  return error;
}

static Dlsym real_dlsym(void) {
  static Dlsym found = NULL;
  static const char* const versions[] = {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17"};
  for (int i = 0; found == NULL && i < 3; ++i) {
    found = (Dlsym)dlvsym(RTLD_NEXT, "dlsym", versions[i]);
  }
  return found;
}

__attribute__((visibility("default"))) void* dlsym(void* handle, const char* name) {
  const int is_launch = strcmp(name, "cuLaunchKernelEx") == 0;
  if (!is_launch && strcmp(name, "cuGetProcAddress_v2") != 0) {
    // A jump, so that the caller of RTLD_NEXT stays the caller.
    return real_dlsym()(handle, name);
  }
  void* found = real_dlsym()(handle, name);
  if (found == NULL) return NULL;
  if (is_launch) {
    real_launch = (Launch)found;
    return (void*)&launch;
  }
  real_get_proc_address = (GetProcAddress)found;
  return (void*)&get_proc_address;
}
