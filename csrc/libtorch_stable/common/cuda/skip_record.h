// Host side of the skip record of each device.
// Used by CudaContext, which gives kernels its address, and by registration/cuda (kvops.skipped()).
#pragma once

#include "common/skipped.h"

namespace kvops::cuda {

// The current device's record, in device memory. Safe under graph capture.
SkipRecord* skip_record(int device);

// Reads the record of a device on a stream of its own: waits for no other work. Only devices that
// ran a kernel of ours have one; the others give an empty record.
SkipRecord read_skip_record(int device);

void clear_skip_record(int device);

}  // namespace kvops::cuda
