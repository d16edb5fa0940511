"""Transfers: what tokens have in a KV cache, copied between pools of different layouts.

An *item* is what one token has in one layer of K, of V, or of an MLA cache. Pools hold items

* layer first (lf): a tensor [tokens, *item] for each layer,
* page first (pf): one tensor [tokens, layers, *item], or by pages (direct forms):
  [pages, layers, page_size, *item],
* page head (ph): one tensor [pages, heads, page_size, layers, head_dim].

Drawings are in docs/kvcacheio.md. The *kernel forms* take indices on the GPU, never look at them on
the host, and copy with at most `block_quota` thread blocks of at most `num_warps_per_block` warps.
The *direct forms* are planned by the host and carried out by the engine of the swaps (see
:func:`kvops.swap_blocks_batch`): the GPU's copy engines where copies are large.

Values of index tensors are not trusted: an item whose source or target is out of range, negative
ones included, is not copied (see :func:`kvops.skipped`). `kvops.checked()` raises instead.
Targets of one call should be distinct, and should not be its sources as well: which of two copies a
byte comes from is not defined on a GPU.
"""

from ._direct_forms import (
    transfer_embedding_ranges_direct,
    transfer_kv_all_layer_direct_lf_pf,
    transfer_kv_direct,
    transfer_kv_per_layer_direct_pf_lf,
)
from ._kernel_forms import (
    transfer_kv_all_layer,
    transfer_kv_all_layer_lf_pf,
    transfer_kv_all_layer_lf_ph,
    transfer_kv_all_layer_mla,
    transfer_kv_all_layer_mla_lf_pf,
    transfer_kv_per_layer,
    transfer_kv_per_layer_mla,
    transfer_kv_per_layer_mla_pf_lf,
    transfer_kv_per_layer_pf_lf,
    transfer_kv_per_layer_ph_lf,
)

__all__ = [
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
