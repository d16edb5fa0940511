// Entry points of the CUDA driver that the swaps call, found at run time; nothing links to them.
// Of CUDA, only cuda.h is included here and in the other driver_* and memory_map files, and no
// runtime function is called: they compile with the headers of 12.8 and of 13.x alike (tested).
#pragma once

#include <cuda.h>

#include <cstddef>
#include <string>

namespace kvops::cuda {

// cuMemcpyBatchAsync as CUDA 12.8 defined it. The name means another function in the headers of
// 13.x (8 arguments, no failIdx), but the driver still hands out this one to those who ask for
// version 12080: one binary serves every driver from 12.8 on.
using MemcpyBatchAsync12080 = CUresult(CUDAAPI*)(CUdeviceptr* dsts, CUdeviceptr* srcs,
                                                 size_t* sizes, size_t count,
                                                 CUmemcpyAttributes* attrs, size_t* attrs_idxs,
                                                 size_t num_attrs, size_t* fail_idx,
                                                 CUstream stream);

struct DriverEntry {
  decltype(&cuMemcpyAsync) memcpy_async;
  decltype(&cuPointerGetAttributes) pointer_get_attributes;
  decltype(&cuGetErrorName) get_error_name;    // may be null
  decltype(&cuMemcpy2DAsync) memcpy_2d_async;  // may be null
  MemcpyBatchAsync12080 memcpy_batch_async;    // null if the driver is older than 12.8
};

// Looked up once, by whichever thread comes first; null where there is no driver.
const DriverEntry* driver_entry();

// "CUDA_ERROR_INVALID_VALUE (1)"
std::string error_text(const DriverEntry& driver, CUresult error);

}  // namespace kvops::cuda
