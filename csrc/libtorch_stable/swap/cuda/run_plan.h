// Carries out the copies of a plan by the best paths. Called by the swaps on CUDA.
// Everything is work of the context's stream: after what that has, before what it gets next.
// The context's device must be current for our CUDA runtime (make_current).
#pragma once

#include "common/cuda/context.h"
#include "swap/cuda/copy_plan.h"
#include "swap/cuda/driver_entry.h"

namespace kvops::cuda {

// Copies in any order. `any_order`: sources may be read before earlier work of the stream is done.
void run_plan(const CudaContext& context, const DriverEntry& driver, const CopyPlan& plan,
              bool any_order);

}  // namespace kvops::cuda
