// Checks the arguments of the MLA operators and fills their parameter structs.
// Called first by the CPU and the CUDA operator alike; throws before anything is written.
// What only the values of index tensors can tell is left to the kernels (skipped) or checked mode.
#pragma once

#include "common/stable.h"
#include "mla/params.h"

namespace kvops {

ConcatMlaQParams validate_concat_mla_q(const Tensor& ql_nope, const Tensor& q_pe,
                                       const Tensor& q_out);

}  // namespace kvops
