"""KV-cache and paged-attention operators for PyTorch, on the stable ABI.

Every operator is there three times: as a typed function of this package, as
`torch.ops.kvops.<op>`, and under the name that vLLM (`torch.ops._C_cache_ops.<op>`,
`torch.ops._C.<op>`) or SGLang (`torch.ops.sgl_kernel.<op>`) has for it; see `register_vllm_names`
and `register_sglang_names`.
"""

from ._checked import checked
from ._native import OPERATORS as _OPERATORS  # first: it says what is wrong if anything is
from ._peer_names import register_sglang_names, register_vllm_names
from ._skipped import Skipped, clear_skipped, skipped
from .attention import merge_attn_states, paged_attention_v1, paged_attention_v2
from .cache import convert_fp8, reshape_and_cache, reshape_and_cache_flash
from .gather import (
    cp_gather_and_upconvert_fp8_kv_cache,
    cp_gather_cache,
    cp_gather_indexer_k_quant_cache,
    gather_and_maybe_dequant_cache,
)
from .info import info, version
from .mla import (
    concat_and_cache_mla,
    concat_and_cache_mla_rope_fused,
    concat_mla_q,
    indexer_k_quant_and_cache,
)
from .nvfp4 import Nvfp4Views, dequantize_nvfp4_cache, nvfp4_split_views
from .pinned_pool import PinnedPool
from .swap import swap_blocks, swap_blocks_batch
from .transfer import (
    transfer_embedding_ranges_direct,
    transfer_kv_all_layer,
    transfer_kv_all_layer_direct_lf_pf,
    transfer_kv_all_layer_lf_pf,
    transfer_kv_all_layer_lf_ph,
    transfer_kv_all_layer_mla,
    transfer_kv_all_layer_mla_lf_pf,
    transfer_kv_direct,
    transfer_kv_per_layer,
    transfer_kv_per_layer_direct_pf_lf,
    transfer_kv_per_layer_mla,
    transfer_kv_per_layer_mla_pf_lf,
    transfer_kv_per_layer_pf_lf,
    transfer_kv_per_layer_ph_lf,
)

from .swap._calibrate import use_environment  # isort: skip
from . import _autograd, _fakes, _graphs, _peer_names  # isort: skip


def _register() -> None:
    for operator in _OPERATORS:
        _fakes.register("kvops", operator.name)
        _autograd.pass_by("kvops", operator.name)
        _graphs.keep_out_of_graphs_if_needed("kvops", operator.name)
    _peer_names.set_up()
    use_environment()


_register()
__version__ = version()

__all__ = [
    "Nvfp4Views",
    "PinnedPool",
    "Skipped",
    "checked",
    "clear_skipped",
    "concat_and_cache_mla",
    "concat_and_cache_mla_rope_fused",
    "concat_mla_q",
    "convert_fp8",
    "cp_gather_and_upconvert_fp8_kv_cache",
    "cp_gather_cache",
    "cp_gather_indexer_k_quant_cache",
    "dequantize_nvfp4_cache",
    "gather_and_maybe_dequant_cache",
    "indexer_k_quant_and_cache",
    "info",
    "merge_attn_states",
    "nvfp4_split_views",
    "paged_attention_v1",
    "paged_attention_v2",
    "register_sglang_names",
    "register_vllm_names",
    "reshape_and_cache",
    "reshape_and_cache_flash",
    "skipped",
    "swap_blocks",
    "swap_blocks_batch",
    "transfer_embedding_ranges_direct",
    "transfer_kv_all_layer",
    "transfer_kv_all_layer_direct_lf_pf",
    "transfer_kv_all_layer_lf_pf",
    "transfer_kv_all_layer_lf_ph",
    "transfer_kv_all_layer_mla",
    "transfer_kv_all_layer_mla_lf_pf",
    "transfer_kv_direct",
    "transfer_kv_per_layer",
    "transfer_kv_per_layer_direct_pf_lf",
    "transfer_kv_per_layer_mla",
    "transfer_kv_per_layer_mla_pf_lf",
    "transfer_kv_per_layer_pf_lf",
    "transfer_kv_per_layer_ph_lf",
]
