// Plain C functions of _C_cuda for kvops/swap: the model of paths, and explanations.
// Called through ctypes; none of them throws.
#include <cstdint>
#include <cstdio>
#include <exception>

#include "swap/cuda/driver_copies.h"
#include "swap/cuda/explain.h"
#include "swap/cuda/host_pace.h"
#include "swap/cuda/path_model.h"
#include "swap/paths.h"

#define KVOPS_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// A row of numbers for each part: kind, copies, bytes, path, is_rows, microseconds of each path and
// of a led batch.
constexpr int kPartNumbers = 6 + kvops::cuda::kNumModelPaths;

void write_part(const kvops::cuda::ExplainedPart& part, double* row) {
  *row++ = static_cast<double>(part.kind);
  *row++ = static_cast<double>(part.copies);
  *row++ = static_cast<double>(part.bytes);
  *row++ = part.path;
  *row++ = part.is_rows ? 1 : 0;
  for (const double microseconds : part.microseconds) *row++ = microseconds;
  *row = part.led_microseconds;
}

}  // namespace

KVOPS_EXPORT int kvops_cuda_swap_model_numbers() { return kvops::cuda::kModelNumbers; }

// Sizes in bytes that the model has costs for; 0 past the end.
KVOPS_EXPORT double kvops_cuda_swap_model_size(int index) {
  return 0 <= index && index < kvops::cuda::PathCost::kNumSizes
             ? kvops::cuda::PathCost::kSizes[index]
             : 0;
}

// Null for the built-in model; 0 if there is no such device.
KVOPS_EXPORT int kvops_cuda_swap_set_model(int device, const double* numbers) {
  kvops::cuda::forget_host_pace(device);
  return kvops::cuda::set_path_model(device, numbers) ? 1 : 0;
}

KVOPS_EXPORT void kvops_cuda_swap_get_model(int device, double* numbers) {
  const kvops::cuda::PathModel& model = kvops::cuda::path_model(device);
  const auto* from = reinterpret_cast<const double*>(&model);
  for (int i = 0; i < kvops::cuda::kModelNumbers; ++i) numbers[i] = from[i];
}

// Parts of a call with these tables, at most `most`; -1 and a message if that cannot be told, -2 if
// no address is a device's.
KVOPS_EXPORT int64_t kvops_cuda_swap_explain(const int64_t* src_ptrs, const int64_t* dst_ptrs,
                                             const int64_t* sizes, int64_t num_copies, int device,
                                             int on_default_stream, int capturing, double* rows,
                                             int64_t most, char* message, size_t message_bytes) {
  try {
    const kvops::cuda::DriverEntry* driver = kvops::cuda::driver_entry();
    if (driver == nullptr) return -2;
    const kvops::cuda::PathChoice choice{.allowed = kvops::swap_wishes().paths,
                                         .has_batch = kvops::cuda::batch_call_works(*driver),
                                         .has_2d = driver->memcpy_2d_async != nullptr,
                                         .capturing = capturing != 0,
                                         .on_default_stream = on_default_stream != 0,
                                         .model = &kvops::cuda::path_model(device),
                                         .host_pace = kvops::cuda::host_pace(device)};
    const kvops::SwapBlocksBatchParams params{.src_ptrs = src_ptrs,
                                              .dst_ptrs = dst_ptrs,
                                              .sizes = sizes,
                                              .num_copies = num_copies,
                                              .total_bytes = 0};
    kvops::cuda::MemoryMap memory("swap_blocks_batch", driver);
    if (!kvops::cuda::touches_a_device(memory, params)) return -2;
    const auto parts = kvops::cuda::explain_copies(params, device, choice);
    const auto number = static_cast<int64_t>(parts.size());
    for (int64_t i = 0; i < number && i < most; ++i) write_part(parts[i], rows + i * kPartNumbers);
    return number;
  } catch (const std::exception& error) {
    std::snprintf(message, message_bytes, "%s", error.what());
    return -1;
  }
}
