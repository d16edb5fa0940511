// Plans copies and carries them out. See copy_run.h.
#include "swap/cuda/copy_run.h"

#include "swap/cuda/run_plan.h"

namespace kvops::cuda {

CopyRun::CopyRun(const CudaContext& context, const DriverEntry& driver, const CopyHints& hints)
    : context_(context),
      driver_(driver),
      hints_(hints),
      memory_(context.op(), &driver),
      planner_(memory_, context.device()) {}

void CopyRun::add(const Copy& copy) { planner_.add(copy); }

void CopyRun::finish() { run_plan(context_, driver_, planner_.take(), hints_.any_order); }

}  // namespace kvops::cuda
