// Puts an index that the host has skipped on the device's record, in stream order: the record has
// one writer at a time, whoever skips. Called by the direct forms.
#pragma once

#include <cuda_runtime_api.h>

#include "common/skipped.h"
#include "transfer/token_runs.h"

namespace kvops::kernels {

cudaError_t launch_report_index(const SkipReport& report, const BadIndex& bad, cudaStream_t stream);

}  // namespace kvops::kernels
