// The CUDA kernel of every operator that has one, and the plain C functions of _C_cuda.
// Runs when _C_cuda is loaded, which kvops/_native.py does after _C and only on a CUDA torch.
// kvops_cuda_attach receives what _C shares; it must be called before the first operator.
#include <cuda_runtime_api.h>

#include <cstring>
#include <exception>

#include "attention/ops.h"
#include "attention/paged_attention_v1.h"
#include "attention/paged_attention_v2.h"
#include "cache/ops.h"
#include "common/cuda/driver.h"
#include "common/cuda/skip_record.h"
#include "common/host_api.h"
#include "gather/ops.h"
#include "mla/ops.h"
#include "registration/boxed.h"
#include "registration/cuda/device_queries.h"
#include "registration/kernel_list.h"
#include "registration/schemas.h"
#include "swap/ops.h"
#include "swap/paths.h"
#include "transfer/ops.h"

#define KVOPS_EXPORT extern "C" __attribute__((visibility("default")))

namespace kvops {
namespace {

constexpr Kernel kCudaKernels[] = {
    // ---- cache
    {"reshape_and_cache", boxed<&cuda::reshape_and_cache>},
    {"reshape_and_cache_flash", boxed<&cuda::reshape_and_cache_flash>},
    {"convert_fp8", boxed<&cuda::convert_fp8>},

    // ---- mla
    {"concat_and_cache_mla", boxed<&cuda::concat_and_cache_mla>},
    {"concat_and_cache_mla_rope_fused", boxed<&cuda::concat_and_cache_mla_rope_fused>},
    {"concat_mla_q", boxed<&cuda::concat_mla_q>},
    {"indexer_k_quant_and_cache", boxed<&cuda::indexer_k_quant_and_cache>},

    // ---- gather
    {"gather_and_maybe_dequant_cache", boxed<&cuda::gather_and_maybe_dequant_cache>},
    {"cp_gather_cache", boxed<&cuda::cp_gather_cache>},
    {"cp_gather_and_upconvert_fp8_kv_cache", boxed<&cuda::cp_gather_and_upconvert_fp8_kv_cache>},
    {"cp_gather_indexer_k_quant_cache", boxed<&cuda::cp_gather_indexer_k_quant_cache>},

    // ---- attention
    {"merge_attn_states", boxed<&cuda::merge_attn_states>},
    {"paged_attention_v1", boxed<&paged_attention_v1<&cuda::paged_attention>>},
    {"paged_attention_v2", boxed<&paged_attention_v2<&cuda::paged_attention>>},

    // ---- swap
    {"swap_blocks", boxed<&cuda::swap_blocks>},

    // ---- transfer
    {"transfer_kv_per_layer", boxed<&Transfer<&validate_transfer_kv_per_layer>::on_cuda>},
    {"transfer_kv_per_layer_pf_lf",
     boxed<&Transfer<&validate_transfer_kv_per_layer_pf_lf>::on_cuda>},
    {"transfer_kv_per_layer_ph_lf",
     boxed<&Transfer<&validate_transfer_kv_per_layer_ph_lf>::on_cuda>},
    {"transfer_kv_per_layer_mla", boxed<&Transfer<&validate_transfer_kv_per_layer_mla>::on_cuda>},
    {"transfer_kv_per_layer_mla_pf_lf",
     boxed<&Transfer<&validate_transfer_kv_per_layer_mla_pf_lf>::on_cuda>},
    {"transfer_kv_all_layer", boxed<&Transfer<&validate_transfer_kv_all_layer>::on_cuda>},
    {"transfer_kv_all_layer_lf_pf",
     boxed<&Transfer<&validate_transfer_kv_all_layer_lf_pf>::on_cuda>},
    {"transfer_kv_all_layer_lf_ph",
     boxed<&Transfer<&validate_transfer_kv_all_layer_lf_ph>::on_cuda>},
    {"transfer_kv_all_layer_mla", boxed<&Transfer<&validate_transfer_kv_all_layer_mla>::on_cuda>},
    {"transfer_kv_all_layer_mla_lf_pf",
     boxed<&Transfer<&validate_transfer_kv_all_layer_mla_lf_pf>::on_cuda>},
    {"transfer_kv_direct", boxed<&Transfer<&validate_transfer_kv_direct>::on_cuda>},
    {"transfer_embedding_ranges_direct",
     boxed<&Transfer<&validate_transfer_embedding_ranges_direct>::on_cuda>},
    {"transfer_kv_per_layer_direct_pf_lf",
     boxed<&Transfer<&validate_transfer_kv_per_layer_direct_pf_lf>::on_cuda>},
    {"transfer_kv_all_layer_direct_lf_pf",
     boxed<&Transfer<&validate_transfer_kv_all_layer_direct_lf_pf>::on_cuda>},

};

const HostApi* host_api = nullptr;

}  // namespace

bool checked_mode() { return host_api != nullptr && host_api->checked_mode(); }
SwapWishes swap_wishes() {
  return host_api != nullptr ? host_api->swap_wishes() : SwapWishes{kSwapAnyPath, 1};
}
void note_swap_paths(unsigned paths) {
  if (host_api != nullptr) host_api->note_swap_paths(paths);
}

}  // namespace kvops

STABLE_TORCH_LIBRARY_IMPL(kvops, CUDA, m) {
  for (const kvops::Kernel& kernel : kvops::kCudaKernels) m.impl(kernel.name, kernel.boxed);
}

KVOPS_EXPORT void kvops_cuda_attach(const kvops::HostApi* api) {
  kvops::host_api = api;
  api->set_swap_on_devices(&kvops::cuda::swap_blocks_batch);
}
KVOPS_EXPORT const char* kvops_cuda_version() { return KVOPS_VERSION; }
KVOPS_EXPORT const char* kvops_cuda_build() { return KVOPS_CUDA_BUILD; }
// Empty, or one sentence on why no CUDA operator can run with the driver of this machine.
KVOPS_EXPORT const char* kvops_cuda_driver_problem() {
  return kvops::cuda::driver_problem().c_str();
}

// The skip record of a device: 1 if there is one, 0 if nothing was skipped, -1 if it is unreadable.
KVOPS_EXPORT int kvops_cuda_skipped(int device, kvops::SkipRecord* record) {
  try {
    *record = kvops::cuda::read_skip_record(device);
    return record->state == 2u ? 1 : 0;
  } catch (const std::exception&) {
    return -1;
  }
}

KVOPS_EXPORT int kvops_cuda_clear_skipped(int device) {
  try {
    kvops::cuda::clear_skip_record(device);
    return 0;
  } catch (const std::exception&) {
    return -1;
  }
}

// Adds the CUDA kernel to a peer's name whose schema _C has defined; 0 if there is no such kernel.
KVOPS_EXPORT int kvops_cuda_claim_peer_name(const char* name) {
  using Library = torch::stable::detail::StableLibrary;
  const kvops::Kernel* kernel = kvops::find_kernel(kvops::kCudaKernels, name);
  for (const kvops::OperatorSchema& op : kvops::kOperators) {
    if (kernel == nullptr || std::strcmp(op.name, name) != 0) continue;
    try {
      // Never deleted: deleting a library object takes its registrations back.
      auto* cuda = new Library(Library::Kind::IMPL, op.peer_namespace, "CUDA", __FILE__, __LINE__);
      cuda->impl(kernel->name, kernel->boxed);
      return 1;
    } catch (const std::exception&) {
      return 0;
    }
  }
  return 0;
}

// Defines _C_cuda_utils::<name>; 0 if there is no such query.
KVOPS_EXPORT int kvops_cuda_claim_device_query(const char* name) {
  return kvops::cuda::claim_device_query(name) ? 1 : 0;
}
