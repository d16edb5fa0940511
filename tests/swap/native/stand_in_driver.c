// A stand-in for libcuda.so.1 with the entry points that the swaps use, in plain C types: what it
// receives is what the ABI of CUDA 12.8 passes, not what a header says. All memory is the host's.
// Tests set and read its globals through ctypes.
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
  int order;
  struct {
    int type, id;
  } src_hint, dst_hint;
  unsigned flags;
} Attributes;

typedef struct {
  uint64_t begin, bytes, device_pointer_offset;
  int type, device, managed;
} Range;

// ---- what tests set
int version = 13000;
int has_batch = 1;
int is_initialised = 1;
int batch_error = 0;   // returned by the batch call number fail_in_call, and by later ones
int fail_in_call = 0;  // counted from 0
size_t fail_index = SIZE_MAX;
int error_2d = 0;      // returned by every 2-D copy
int single_error = 0;  // returned by the single copy number fail_in_single
int fail_in_single = 0;
Range ranges[64];
int num_ranges = 0;

// ---- what tests read
int lookups = 0, asked_version = 0, batch_calls = 0, single_calls = 0, calls_2d = 0, queries = 0;
char asked_name[64];
size_t counts[64];     // copies of each batch call
Attributes attribute;  // of the last batch call, and its other arguments
size_t num_attributes, first_index;
int has_fail_index;
void *batch_stream, *single_stream;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

int cuDriverGetVersion(int* value) {
  *value = version;
  return 0;
}

static int batch(uint64_t* dsts, uint64_t* srcs, size_t* sizes, size_t count,
                 Attributes* attributes, size_t* indices, size_t number, size_t* failed,
                 void* stream) {
  pthread_mutex_lock(&mutex);
  const int call = batch_calls++;
  counts[call % 64] = count;
  attribute = attributes[0];
  num_attributes = number;
  first_index = indices[0];
  has_fail_index = failed != NULL;
  batch_stream = stream;
  pthread_mutex_unlock(&mutex);
  if (batch_error != 0 && call >= fail_in_call) {
    if (failed != NULL) *failed = fail_index;
    return batch_error;
  }
  for (size_t i = 0; i < count; ++i) memcpy((void*)dsts[i], (void*)srcs[i], sizes[i]);
  return 0;
}

int cuGetProcAddress_v2(const char* name, void** function, int wanted, uint64_t flags,
                        int* status) {
  (void)flags;
  pthread_mutex_lock(&mutex);
  ++lookups;
  asked_version = wanted;
  strncpy(asked_name, name, sizeof(asked_name) - 1);
  pthread_mutex_unlock(&mutex);
  *function = NULL;
  *status = 1;  // symbol not found
  if (!has_batch) return 0;
  *status = version >= 12080 ? 0 : 2;  // or the version is not sufficient
  // A later version is another function with 8 arguments, which this driver does not even have.
  if (version >= 12080 && wanted == 12080) *function = (void*)&batch;
  return 0;
}

int cuMemcpyAsync(uint64_t dst, uint64_t src, size_t bytes, void* stream) {
  pthread_mutex_lock(&mutex);
  const int call = single_calls++;
  single_stream = stream;
  pthread_mutex_unlock(&mutex);
  if (single_error != 0 && call == fail_in_single) return single_error;
  memcpy((void*)dst, (void*)src, bytes);
  return 0;
}

// CUDA_MEMCPY2D as the ABI has it since CUDA 3.2.
typedef struct {
  struct {
    size_t x_bytes, y;
    int type;
    void* host;
    uint64_t device;
    void* array;
    size_t pitch;
  } src, dst;
  size_t width, height;
} Copy2D;

int cuMemcpy2DAsync_v2(const Copy2D* copy, void* stream) {
  (void)stream;
  pthread_mutex_lock(&mutex);
  ++calls_2d;
  pthread_mutex_unlock(&mutex);
  if (error_2d != 0) return error_2d;
  // Addresses of any memory are "unified" (4) ones; offsets are for arrays.
  if (copy->src.type != 4 || copy->dst.type != 4 || copy->src.x_bytes || copy->dst.y) return 1;
  for (size_t i = 0; i < copy->height; ++i) {
    memcpy((void*)(copy->dst.device + i * copy->dst.pitch),
           (void*)(copy->src.device + i * copy->src.pitch), copy->width);
  }
  return 0;
}

int cuGetErrorName(int error, const char** name) {
  *name = error == 1 ? "CUDA_ERROR_INVALID_VALUE" : NULL;
  return error == 1 ? 0 : 1;
}

// Writes as many bytes as the driver does, and zeros for memory that it does not know.
int cuPointerGetAttributes(unsigned number, int* names, void** values, uint64_t address) {
  pthread_mutex_lock(&mutex);
  ++queries;
  pthread_mutex_unlock(&mutex);
  if (!is_initialised) return 3;
  Range none = {0}, *found = &none;
  for (int i = 0; i < num_ranges; ++i) {
    if (address >= ranges[i].begin && address - ranges[i].begin < ranges[i].bytes)
      found = &ranges[i];
  }
  for (unsigned i = 0; i < number; ++i) {
    switch (names[i]) {
      case 2:
        *(unsigned*)values[i] = (unsigned)found->type;
        break;
      case 3:
        *(uint64_t*)values[i] = found->type ? address + found->device_pointer_offset : 0;
        break;
      case 8:
        *(unsigned char*)values[i] = (unsigned char)found->managed;
        break;
      case 9:
        *(int*)values[i] = found->type ? found->device : -2;
        break;
      case 11:
        *(uint64_t*)values[i] = found->begin;
        break;
      case 12:
        *(size_t*)values[i] = found->bytes;
        break;
      default:
        return 1;
    }
  }
  return 0;
}
