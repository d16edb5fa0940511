// The CPU kernel of an operator, by name; null if there is none.
// Defined in cpu.cpp; used when names of peers are claimed.
#pragma once

#include "registration/kernel_list.h"

namespace kvops {

const Kernel* cpu_kernel(const char* name);

}  // namespace kvops
