// Launches the gather that copies entries as they are (copy_rows.cuh).
// Called by cp_gather_cache and gather_and_maybe_dequant_cache; compiled once, in copy_rows.cu.
#pragma once

#include "gather/cuda/kernels/requests.cuh"

namespace kvops::kernels {

cudaError_t launch_copy_rows(const GatherCall& call, const EntryRows& rows);

}  // namespace kvops::kernels
