// The table of this level's MLA kernels.
// Read through mla_kernels() by the thin operators of mla/cpu.
// One translation unit per level, so that everything but the table has internal linkage.
#include "mla/cpu/kernels.h"

#include "mla/cpu/kernels/concat_and_cache_mla.h"
#include "mla/cpu/kernels/concat_and_cache_mla_rope_fused.h"
#include "mla/cpu/kernels/indexer_k_quant_and_cache.h"

namespace kvops::cpu::KVOPS_ISA {

constexpr MlaKernels mla_kernels_table{
    .write_entries = write_entries,
    .rope_fused = rope_fused,
    .indexer_quant = indexer_quant,
};

}  // namespace kvops::cpu::KVOPS_ISA
