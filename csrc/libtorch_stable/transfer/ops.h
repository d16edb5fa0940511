// The operators of this capability, for registration.
// An operator is its validation and what runs on its result, so its signature is the validation's,
// and is written once (transfer/validate.h). Semantics and errors: docstrings in kvops/transfer.
#pragma once

#include "transfer/validate.h"

namespace kvops {

namespace cpu {
void run_transfer(const TransferParams& params);
void run_transfer(const DirectTransferParams& params);
void run_transfer(const EmbeddingRangesParams& params);
}  // namespace cpu

namespace cuda {
void run_transfer(const TransferParams& params);
void run_transfer(const DirectTransferParams& params);
void run_transfer(const EmbeddingRangesParams& params);
}  // namespace cuda

template <auto kValidate>
struct Transfer;

template <class Params, class... Arguments, Params (*kValidate)(Arguments...)>
struct Transfer<kValidate> {
  static void on_cpu(Arguments... arguments) { cpu::run_transfer(kValidate(arguments...)); }
  static void on_cuda(Arguments... arguments) { cuda::run_transfer(kValidate(arguments...)); }
};

}  // namespace kvops
