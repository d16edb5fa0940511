// Questions about a device that vLLM registers as operators: _C_cuda_utils::<query>.
// They take no tensor, exist only with CUDA, and only under vLLM's names.
// Defined when kvops/_peer_names.py claims the name; see peer_names.cpp for why not earlier.
#pragma once

namespace kvops::cuda {

// Defines one of them; false if there is no such query or torch refused it.
bool claim_device_query(const char* name);

}  // namespace kvops::cuda
