// Puts an index that the host has skipped on the device's record, in stream order. See the header.
#include "transfer/cuda/kernels/report_index.h"

#include "common/cuda/skipped.cuh"

namespace kvops::kernels {
namespace {

__global__ void report_index_kernel(SkipReport report, BadIndex bad) {
  report_skipped(report, bad.index, bad.value);
  atomicAdd(&report.record->count, static_cast<unsigned long long>(bad.count - 1));
}

}  // namespace

cudaError_t launch_report_index(const SkipReport& report, const BadIndex& bad,
                                cudaStream_t stream) {
  report_index_kernel<<<1, 1, 0, stream>>>(report, bad);
  return cudaGetLastError();
}

}  // namespace kvops::kernels
