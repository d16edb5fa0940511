// The driver, with one call that fails (fault.h).
// Everything else goes to libcuda.so.1, so that bytes move as they do without it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

#include "fault.h"

static void* real(const char* name) {
  static void* library = NULL;
  if (library == NULL) library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  return dlsym(library, name);
}

int cuDriverGetVersion(int* version) {
  return ((int (*)(int*))real("cuDriverGetVersion"))(version);
}

int cuGetErrorName(int error, const char** name) {
  return ((int (*)(int, const char**))real("cuGetErrorName"))(error, name);
}

int cuPointerGetAttributes(unsigned number, int* names, void** values, uint64_t address) {
  const int error = fault("cuPointerGetAttributes");
  if (error != 0) return error;
  typedef int (*Function)(unsigned, int*, void**, uint64_t);
  return ((Function)real("cuPointerGetAttributes"))(number, names, values, address);
}

int cuMemcpyAsync(uint64_t dst, uint64_t src, size_t bytes, void* stream) {
  const int error = fault("cuMemcpyAsync");
  if (error != 0) return error;
  typedef int (*Function)(uint64_t, uint64_t, size_t, void*);
  return ((Function)real("cuMemcpyAsync"))(dst, src, bytes, stream);
}

int cuMemcpy2DAsync_v2(const void* copy, void* stream) {
  const int error = fault("cuMemcpy2DAsync");
  if (error != 0) return error;
  return ((int (*)(const void*, void*))real("cuMemcpy2DAsync_v2"))(copy, stream);
}

typedef int (*Batch)(uint64_t*, uint64_t*, size_t*, size_t, void*, size_t*, size_t, size_t*, void*);
static Batch real_batch;

static int batch(uint64_t* dsts, uint64_t* srcs, size_t* sizes, size_t count, void* attributes,
                 size_t* indices, size_t number, size_t* failed, void* stream) {
  const int error = fault("cuMemcpyBatchAsync");
  if (error != 0) return error;
  return real_batch(dsts, srcs, sizes, count, attributes, indices, number, failed, stream);
}

int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags,
                        int* status) {
  typedef int (*Function)(const char*, void**, int, uint64_t, int*);
  const int error =
      ((Function)real("cuGetProcAddress_v2"))(name, function, version, flags, status);
  if (error == 0 && *function != NULL && strcmp(name, "cuMemcpyBatchAsync") == 0) {
    real_batch = (Batch)*function;
    *function = (void*)&batch;
  }
  return error;
}
