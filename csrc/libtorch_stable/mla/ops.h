// The typed operators of this capability, for registration: one signature, CPU and CUDA.
// Semantics and errors: docstrings in kvops/mla.py.
// Declared through function types, so that no signature is written twice.
#pragma once

#include <cstdint>
#include <string>

#include "common/stable.h"

namespace kvops {

using ConcatMlaQ = void(const Tensor& ql_nope, const Tensor& q_pe, Tensor& q_out);

namespace cpu {
ConcatMlaQ concat_mla_q;
}  // namespace cpu

namespace cuda {
ConcatMlaQ concat_mla_q;
}  // namespace cuda

}  // namespace kvops
