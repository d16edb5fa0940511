// The CPU kernel of every operator, one line each, and their registration as kvops::<op>.
// Runs when _C is loaded.
// `boxed` turns a typed function into the boxed form of the stable ABI.
#include "registration/cpu.h"

#include "attention/ops.h"
#include "attention/paged_attention_v1.h"
#include "attention/paged_attention_v2.h"
#include "cache/ops.h"
#include "gather/ops.h"
#include "mla/ops.h"
#include "registration/boxed.h"
#include "swap/ops.h"
#include "transfer/ops.h"

namespace kvops {
namespace {

constexpr Kernel kCpuKernels[] = {
    {"reshape_and_cache", boxed<&cpu::reshape_and_cache>},
    {"reshape_and_cache_flash", boxed<&cpu::reshape_and_cache_flash>},
    {"convert_fp8", boxed<&cpu::convert_fp8>},
    {"concat_and_cache_mla", boxed<&cpu::concat_and_cache_mla>},
    {"concat_and_cache_mla_rope_fused", boxed<&cpu::concat_and_cache_mla_rope_fused>},
    {"concat_mla_q", boxed<&cpu::concat_mla_q>},
    {"indexer_k_quant_and_cache", boxed<&cpu::indexer_k_quant_and_cache>},
    {"gather_and_maybe_dequant_cache", boxed<&cpu::gather_and_maybe_dequant_cache>},
    {"cp_gather_cache", boxed<&cpu::cp_gather_cache>},
    {"cp_gather_and_upconvert_fp8_kv_cache", boxed<&cpu::cp_gather_and_upconvert_fp8_kv_cache>},
    {"cp_gather_indexer_k_quant_cache", boxed<&cpu::cp_gather_indexer_k_quant_cache>},
    {"paged_attention_v1", boxed<&paged_attention_v1<&cpu::paged_attention>>},
    {"paged_attention_v2", boxed<&paged_attention_v2<&cpu::paged_attention>>},
    {"merge_attn_states", boxed<&cpu::merge_attn_states>},
    {"swap_blocks", boxed<&cpu::swap_blocks>},
    {"swap_blocks_batch", boxed<&cpu::swap_blocks_batch>},
    {"transfer_kv_per_layer", boxed<&Transfer<&validate_transfer_kv_per_layer>::on_cpu>},
    {"transfer_kv_per_layer_pf_lf",
     boxed<&Transfer<&validate_transfer_kv_per_layer_pf_lf>::on_cpu>},
    {"transfer_kv_per_layer_ph_lf",
     boxed<&Transfer<&validate_transfer_kv_per_layer_ph_lf>::on_cpu>},
    {"transfer_kv_per_layer_mla", boxed<&Transfer<&validate_transfer_kv_per_layer_mla>::on_cpu>},
    {"transfer_kv_per_layer_mla_pf_lf",
     boxed<&Transfer<&validate_transfer_kv_per_layer_mla_pf_lf>::on_cpu>},
    {"transfer_kv_all_layer", boxed<&Transfer<&validate_transfer_kv_all_layer>::on_cpu>},
    {"transfer_kv_all_layer_lf_pf",
     boxed<&Transfer<&validate_transfer_kv_all_layer_lf_pf>::on_cpu>},
    {"transfer_kv_all_layer_lf_ph",
     boxed<&Transfer<&validate_transfer_kv_all_layer_lf_ph>::on_cpu>},
    {"transfer_kv_all_layer_mla", boxed<&Transfer<&validate_transfer_kv_all_layer_mla>::on_cpu>},
    {"transfer_kv_all_layer_mla_lf_pf",
     boxed<&Transfer<&validate_transfer_kv_all_layer_mla_lf_pf>::on_cpu>},
    {"transfer_kv_direct", boxed<&Transfer<&validate_transfer_kv_direct>::on_cpu>},
    {"transfer_embedding_ranges_direct",
     boxed<&Transfer<&validate_transfer_embedding_ranges_direct>::on_cpu>},
    {"transfer_kv_per_layer_direct_pf_lf",
     boxed<&Transfer<&validate_transfer_kv_per_layer_direct_pf_lf>::on_cpu>},
    {"transfer_kv_all_layer_direct_lf_pf",
     boxed<&Transfer<&validate_transfer_kv_all_layer_direct_lf_pf>::on_cpu>},
};

}  // namespace

const Kernel* cpu_kernel(const char* name) { return find_kernel(kCpuKernels, name); }

}  // namespace kvops

STABLE_TORCH_LIBRARY_IMPL(kvops, CPU, m) {
  for (const kvops::Kernel& kernel : kvops::kCpuKernels) m.impl(kernel.name, kernel.boxed);
}
