"""Direct forms: the host plans, and the engine of the swaps copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._docstrings import direct_form

_FIRST_INDEX_ONLY = """looks at the first index of each page only; results differ where others do
    not follow it"""


@direct_form(
    src_layers="""a tensor [tokens, *item] for each layer of K, V or whatever there is: any dtype,
        items dense, any stride of tokens; all on the host or on one GPU.""",
    dst_layers="""as many, with the dtypes and items of `src_layers`; all on the host or on one GPU,
        the same if both are on one. Items do not overlap. Written.""",
    page_size="positive; divides num_items.",
    sglang="takes negative indices for counts from the end",
)
def transfer_kv_direct(
    src_layers: Sequence[Tensor],
    dst_layers: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    page_size: int,
) -> None:
    """Copy items of any number of layers between layer-first pools."""
    torch.ops.kvops.transfer_kv_direct.default(
        src_layers, dst_layers, src_indices, dst_indices, page_size
    )


@direct_form(
    src="[rows, *row], any dtype, rows dense, any stride of rows; on the host or on a GPU.",
    dst="""likewise, with the dtype and row of `src`; on the host or on a GPU, the same if both are
        on one. Rows do not overlap. Written.""",
    src_starts="the first row of each range in `src`.",
    dst_starts="the first row of each range in `dst`; as many.",
    lengths="""rows of each range; as many, not negative. Ranges lie within both tensors: a range
        that does not always raises.""",
    waiting="Nothing synchronises where host memory is pinned, and calls can be captured.",
    sglang="is known here by its schema and its tests only",
)
def transfer_embedding_ranges_direct(
    src: Tensor,
    dst: Tensor,
    src_starts: Sequence[int],
    dst_starts: Sequence[int],
    lengths: Sequence[int],
) -> None:
    """Copy ranges of rows of one tensor to another."""
    torch.ops.kvops.transfer_embedding_ranges_direct.default(
        src, dst, src_starts, dst_starts, lengths
    )


@direct_form(
    src_ptrs="""a tensor [pages, layers, page_size, *item] (MLA), or one of K and one of V: any
        dtype, pages of a layer dense, any stride of pages and layers; on the host or on one
        GPU.""",
    dst_ptrs="""tensors [tokens, *item]: the layers from `layer_id` on, first those of K, then as
        many of V; with the dtype and items of `src_ptrs`, on the host or on one GPU, the same if
        both are on one. Items do not overlap. Written.""",
    layer_id="the first layer, with room for all of `dst_ptrs`.",
    sglang=_FIRST_INDEX_ONLY,
)
def transfer_kv_per_layer_direct_pf_lf(
    src_ptrs: Sequence[Tensor],
    dst_ptrs: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    page_size: int,
) -> None:
    """Copy items of some layers from page-first pools to layer-first ones."""
    torch.ops.kvops.transfer_kv_per_layer_direct_pf_lf.default(
        src_ptrs, dst_ptrs, src_indices, dst_indices, layer_id, page_size
    )


@direct_form(
    src_ptrs="""tensors [tokens, *item]: layers 0, 1, ... of K, then as many of V (MLA: of the one
        pool): any dtype, items dense, any stride of tokens; on the host or on one GPU.""",
    dst_ptrs="""a tensor [pages, layers, page_size, *item] (MLA), or one of K and one of V, with the
        dtype and items of `src_ptrs`: pages of a layer dense and without overlap, any stride of
        pages and layers; on the host or on one GPU, the same if both are on one. Written.""",
    sglang=_FIRST_INDEX_ONLY,
)
def transfer_kv_all_layer_direct_lf_pf(
    src_ptrs: Sequence[Tensor],
    dst_ptrs: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    page_size: int,
) -> None:
    """Copy items of all layers from layer-first pools to page-first ones."""
    torch.ops.kvops.transfer_kv_all_layer_direct_lf_pf.default(
        src_ptrs, dst_ptrs, src_indices, dst_indices, page_size
    )
