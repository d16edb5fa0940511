// The kernels behind launch_copy_rows, one for each of 4 units.
// Unit: the widest of 16, 4, 2 and 1 bytes that divides every pointer, stride and width.
#include "gather/cuda/kernels/copy_rows.h"

#include "gather/cuda/kernels/copy_rows.cuh"

namespace kvops::kernels {

cudaError_t launch_copy_rows(const GatherCall& call, const EntryRows& rows) {
  switch (common_unit_bytes(rows)) {
    case 16:
      return launch_gather(call, CopyRows<uint4>(rows));
    case 4:
      return launch_gather(call, CopyRows<uint32_t>(rows));
    case 2:
      return launch_gather(call, CopyRows<uint16_t>(rows));
    default:
      return launch_gather(call, CopyRows<uint8_t>(rows));
  }
}

}  // namespace kvops::kernels
