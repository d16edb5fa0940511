// The only file that includes torch headers, and only those of the stable ABI.
// Included by common/tensor.h, parallel.h and registration; never by kernels.
// Headers older than 2.14.1 leak every `str` argument (pytorch/pytorch#191340): refused here too.
#pragma once

#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/version.h>

#if TORCH_VERSION_MAJOR == 2 && \
    (TORCH_VERSION_MINOR < 14 || (TORCH_VERSION_MINOR == 14 && TORCH_VERSION_PATCH < 1))
#error "kvops needs the headers of torch >= 2.14.1: older ones leak each str argument at run time"
#endif
