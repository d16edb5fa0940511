"""Slow definitions of every operator in plain PyTorch: the documentation and the oracle of tests.

Each function has the name, argument order and in-place behaviour of its operator's schema and says
what the operator means, one capability per file. They run on CPU tensors with any torch from 2.10
on, and call no operator of kvops. They define results, not refusals: arguments are taken to be
valid, except for indices in tensors, which are skipped when out of range as the operators do.
"""

from __future__ import annotations

from collections.abc import Callable

from .attention import merge_attn_states, paged_attention_v1, paged_attention_v2
from .cache import convert_fp8, reshape_and_cache, reshape_and_cache_flash
from .gather import (
    cp_gather_and_upconvert_fp8_kv_cache,
    cp_gather_cache,
    cp_gather_indexer_k_quant_cache,
    gather_and_maybe_dequant_cache,
)
from .mla import (
    concat_and_cache_mla,
    concat_and_cache_mla_rope_fused,
    concat_mla_q,
    indexer_k_quant_and_cache,
)
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

REFERENCE: dict[str, Callable[..., None]] = {
    operator.__name__: operator
    for operator in (
        concat_and_cache_mla,
        concat_and_cache_mla_rope_fused,
        concat_mla_q,
        convert_fp8,
        cp_gather_and_upconvert_fp8_kv_cache,
        cp_gather_cache,
        cp_gather_indexer_k_quant_cache,
        gather_and_maybe_dequant_cache,
        indexer_k_quant_and_cache,
        merge_attn_states,
        paged_attention_v1,
        paged_attention_v2,
        reshape_and_cache,
        reshape_and_cache_flash,
        swap_blocks,
        swap_blocks_batch,
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
}

__all__ = ["REFERENCE", *REFERENCE]
