"""Copies of what tokens have in a KV cache between pools of different layouts, item by item.

An item is what one token has in one layer of K, of V, or of an MLA cache. Items whose source or
target token is out of range are not copied. Arguments are those of :mod:`kvops.transfer`, all on
the CPU; `block_quota` and `num_warps_per_block` are without effect.

Source: SGLang ``sgl_kernel`` (``kvcacheio/transfer.cu``). Differences: upper bounds of indices are
looked at wherever a tensor says them, and page-first direct forms look at every index.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor

# ---- kernel forms


def transfer_kv_per_layer(
    src_k: Tensor,
    dst_k: Tensor,
    src_v: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """K and V of one layer, both sides [tokens, item] bytes."""
    del block_quota, num_warps_per_block
    _copy_items(
        _layer_first([src_k, src_v], item_size),
        _layer_first([dst_k, dst_v], item_size),
        (src_indices, dst_indices),
        [0],
        item_size,
    )


def transfer_kv_per_layer_mla(
    src: Tensor,
    dst: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """The same for the one pool of an MLA cache."""
    del block_quota, num_warps_per_block
    _copy_items(
        _layer_first([src], item_size),
        _layer_first([dst], item_size),
        (src_indices, dst_indices),
        [0],
        item_size,
    )


def transfer_kv_per_layer_pf_lf(
    src_k: Tensor,
    dst_k: Tensor,
    src_v: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    item_size: int,
    src_layout_dim: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """K and V of one layer, from [tokens, layers, item] to [tokens, item] bytes."""
    del block_quota, num_warps_per_block
    _copy_items(
        _page_first([src_k, src_v], item_size, src_layout_dim),
        _layer_first([dst_k, dst_v], item_size),
        (src_indices, dst_indices),
        [layer_id],
        item_size,
    )


def transfer_kv_per_layer_mla_pf_lf(
    src: Tensor,
    dst: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    item_size: int,
    src_layout_dim: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """The same for the one pool of an MLA cache."""
    del block_quota, num_warps_per_block
    _copy_items(
        _page_first([src], item_size, src_layout_dim),
        _layer_first([dst], item_size),
        (src_indices, dst_indices),
        [layer_id],
        item_size,
    )


def transfer_kv_per_layer_ph_lf(
    src_k: Tensor,
    dst_k: Tensor,
    src_v: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    item_size: int,
    src_layout_dim: int,
    page_size: int,
    head_num: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """K and V of one layer, from [pages, heads, page_size, layers, head] to [tokens, item]."""
    del block_quota, num_warps_per_block
    _copy_items(
        _page_head([src_k, src_v], item_size, src_layout_dim, page_size, head_num),
        _layer_first([dst_k, dst_v], item_size, head_num),
        (src_indices, dst_indices),
        [layer_id],
        item_size,
        head_num,
    )


def transfer_kv_all_layer(
    src_k_layers: Tensor,
    dst_k_layers: Tensor,
    src_v_layers: Tensor,
    dst_v_layers: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    num_layers: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """K and V of all layers, addresses of [tokens, item] bytes on both sides."""
    del block_quota, num_warps_per_block
    _copy_items(
        _tables([src_k_layers, src_v_layers], item_size),
        _tables([dst_k_layers, dst_v_layers], item_size),
        (src_indices, dst_indices),
        range(num_layers),
        item_size,
    )


def transfer_kv_all_layer_mla(
    src_layers: Tensor,
    dst_layers: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    num_layers: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """The same for the one pool of an MLA cache."""
    del block_quota, num_warps_per_block
    _copy_items(
        _tables([src_layers], item_size),
        _tables([dst_layers], item_size),
        (src_indices, dst_indices),
        range(num_layers),
        item_size,
    )


def transfer_kv_all_layer_lf_pf(
    src_k_layers: Tensor,
    dst_k: Tensor,
    src_v_layers: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    dst_layout_dim: int,
    num_layers: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """K and V of all layers, from addresses to [tokens, layers, item] bytes."""
    del block_quota, num_warps_per_block
    _copy_items(
        _tables([src_k_layers, src_v_layers], item_size),
        _page_first([dst_k, dst_v], item_size, dst_layout_dim),
        (src_indices, dst_indices),
        range(num_layers),
        item_size,
    )


def transfer_kv_all_layer_mla_lf_pf(
    src_layers: Tensor,
    dst: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    dst_layout_dim: int,
    num_layers: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """The same for the one pool of an MLA cache."""
    del block_quota, num_warps_per_block
    _copy_items(
        _tables([src_layers], item_size),
        _page_first([dst], item_size, dst_layout_dim),
        (src_indices, dst_indices),
        range(num_layers),
        item_size,
    )


def transfer_kv_all_layer_lf_ph(
    src_k_layers: Tensor,
    dst_k: Tensor,
    src_v_layers: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    dst_layout_dim: int,
    num_layers: int,
    page_size: int,
    head_num: int,
    block_quota: int,
    num_warps_per_block: int,
) -> None:
    """K and V of all layers, from addresses to [pages, heads, page_size, layers, head] bytes."""
    del block_quota, num_warps_per_block
    _copy_items(
        _tables([src_k_layers, src_v_layers], item_size, head_num),
        _page_head([dst_k, dst_v], item_size, dst_layout_dim, page_size, head_num),
        (src_indices, dst_indices),
        range(num_layers),
        item_size,
        head_num,
    )


@dataclass(frozen=True)
class _Side:
    """The pools of one side. `place` is where a head of an item begins."""

    parts: int  # K and V, or one
    tokens: int | None  # in range; None: nobody knows
    place: Callable[[int, int, int, int], int]  # part, layer, token, head -> address


def _layer_first(pools: Sequence[Tensor], item_size: int, heads: int = 1) -> _Side:
    """One layer, whichever it is."""

    def place(part: int, layer: int, token: int, head: int) -> int:
        return pools[part].data_ptr() + token * item_size + head * (item_size // heads)

    return _Side(len(pools), _tokens(pools, item_size), place)


def _tables(tables: Sequence[Tensor], item_size: int, heads: int = 1) -> _Side:
    def place(part: int, layer: int, token: int, head: int) -> int:
        return _address(tables[part], layer) + token * item_size + head * (item_size // heads)

    return _Side(len(tables), None, place)


def _page_first(pools: Sequence[Tensor], item_size: int, token_bytes: int) -> _Side:
    def place(part: int, layer: int, token: int, head: int) -> int:
        return pools[part].data_ptr() + token * token_bytes + layer * item_size

    return _Side(len(pools), _tokens(pools, token_bytes), place)


def _page_head(
    pools: Sequence[Tensor], item_size: int, token_bytes: int, page_size: int, heads: int
) -> _Side:
    pages = _tokens(pools, page_size * token_bytes)
    shape = (pages, heads, page_size, token_bytes // item_size, item_size // heads)

    def place(part: int, layer: int, token: int, head: int) -> int:
        page, offset = divmod(token, page_size)
        return pools[part].data_ptr() + _flat((page, head, offset, layer, 0), shape)

    return _Side(len(pools), pages * page_size, place)


def _copy_items(
    src: _Side,
    dst: _Side,
    indices: tuple[Tensor, Tensor],
    layers: Sequence[int],
    item_size: int,
    heads: int = 1,
) -> None:
    for part, layer, head in product(range(src.parts), layers, range(heads)):
        for s, d in _items(*indices, (src.tokens, dst.tokens)):
            source, target = src.place(part, layer, s, head), dst.place(part, layer, d, head)
            _copy(source, target, item_size // heads)


# ---- direct forms


def transfer_kv_direct(
    src_layers: Sequence[Tensor],
    dst_layers: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    page_size: int,
) -> None:
    """Rows of any number of layers: [tokens, *item] on both sides."""
    del page_size
    limits = _least_rows(src_layers), _least_rows(dst_layers)
    for s, d in _items(src_indices, dst_indices, limits):
        for src, dst in zip(src_layers, dst_layers, strict=True):
            _copy_row(src[s], dst[d])


def transfer_embedding_ranges_direct(
    src: Tensor,
    dst: Tensor,
    src_starts: Sequence[int],
    dst_starts: Sequence[int],
    lengths: Sequence[int],
) -> None:
    """Rows ``src_starts[i] + k`` of ``src`` to rows ``dst_starts[i] + k`` of ``dst``."""
    for source, target, length in zip(src_starts, dst_starts, lengths, strict=True):
        for k in range(length):
            _copy_row(src[source + k], dst[target + k])


def transfer_kv_per_layer_direct_pf_lf(
    src_ptrs: Sequence[Tensor],
    dst_ptrs: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    page_size: int,
) -> None:
    """Layers from ``layer_id`` on, from [pages, layers, page_size, *item] to [tokens, *item]."""
    layers = len(dst_ptrs) // len(src_ptrs)
    limits = _least_rows(src_ptrs) * page_size, _least_rows(dst_ptrs)
    for s, d in _items(src_indices, dst_indices, limits):
        for i, dst in enumerate(dst_ptrs):
            pool, layer = src_ptrs[i // layers], layer_id + i % layers
            _copy_row(pool[s // page_size, layer, s % page_size], dst[d])


def transfer_kv_all_layer_direct_lf_pf(
    src_ptrs: Sequence[Tensor],
    dst_ptrs: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    page_size: int,
) -> None:
    """All layers, from [tokens, *item] to [pages, layers, page_size, *item]."""
    layers = len(src_ptrs) // len(dst_ptrs)
    limits = _least_rows(src_ptrs), _least_rows(dst_ptrs) * page_size
    for s, d in _items(src_indices, dst_indices, limits):
        for i, src in enumerate(src_ptrs):
            pool, layer = dst_ptrs[i // layers], i % layers
            _copy_row(src[s], pool[d // page_size, layer, d % page_size])


# ---- all


def _items(
    src_indices: Tensor, dst_indices: Tensor, limits: tuple[int | None, int | None]
) -> Iterator[tuple[int, int]]:
    """Pairs of tokens that are in range; a limit of None is not known."""
    for pair in zip(src_indices.tolist(), dst_indices.tolist(), strict=True):
        if all(t >= 0 and (n is None or t < n) for t, n in zip(pair, limits, strict=True)):
            yield pair


def _tokens(pools: Sequence[Tensor], token_bytes: int) -> int:
    return min(pool.numel() * pool.element_size() for pool in pools) // token_bytes


def _least_rows(tensors: Sequence[Tensor]) -> int:
    return min((tensor.size(0) for tensor in tensors), default=0)


def _flat(index: Sequence[int], shape: Sequence[int]) -> int:
    """Where an element is in a dense tensor of that shape."""
    place = 0
    for i, size in zip(index, shape, strict=True):
        place = place * size + i
    return place


def _address(table: Tensor, layer: int) -> int:
    return int(table[layer]) & (2**64 - 1)


def _copy_row(src: Tensor, dst: Tensor) -> None:
    _copy(src.data_ptr(), dst.data_ptr(), src.numel() * src.element_size())


def _copy(src: int, dst: int, size: int) -> None:
    ctypes.memmove(dst, src, size)
