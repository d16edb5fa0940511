// How quick this host is at telling the driver of the copies of a batch: hosts differ by a third,
// just where the link takes as long for a copy. Every batch of CopyRun measures it, for all that
// follow; calls that would be made otherwise if it were known leave their last copies to one.
// Torch-free and runtime-free.
#pragma once

#include <cstddef>

namespace kvops::cuda {

// From here on the host needs as long for a copy of any size (H200): below, the driver moves bytes
// in other ways.
inline constexpr size_t kPacedBytes = 28672;

// Microseconds for each copy; 0 while nobody knows.
double host_pace(int device);

void note_host_pace(int device, double microseconds);

// A call has gone by that no batch was part of because the host is slow. After some of these that
// has to be measured again.
void note_slow_host(int device);

// As if none had been measured: the numbers that it is compared with are others.
void forget_host_pace(int device);

}  // namespace kvops::cuda
