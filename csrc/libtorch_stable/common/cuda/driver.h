// libcuda.so.1, opened at run time: nothing links to it, so everything loads without a driver.
// Used by CudaContext (is the driver new enough?) and by swap/ (entry points of the driver).
// KVOPS_LIBCUDA names another file to open: tests put a stand-in there.
#pragma once

#include <string>

namespace kvops::cuda {

// Handle of dlopen, null where there is no driver. Opened once, never closed.
void* driver_library();

// What the driver supports, as CUDA writes versions (12080 is 12.8); 0 where there is no driver.
int driver_version();

// One sentence if the driver is too old for the CUDA runtime inside this library; else empty.
// Within a major version any driver serves; the first of 13.x is R580, of 12.x R525.
const std::string& driver_problem();

}  // namespace kvops::cuda
