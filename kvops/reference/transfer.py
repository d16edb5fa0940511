"""Copies of what tokens have in a KV cache between pools of different layouts, item by item.

An item is what one token has in one layer of K, of V, or of an MLA cache. Items whose source or
target token is out of range are not copied.

Source: SGLang ``sgl_kernel`` (``kvcacheio/transfer.cu``). Differences: upper bounds of indices are
looked at wherever a tensor says them, and page-first direct forms look at every index.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from itertools import product

from torch import Tensor


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
    """Copies items of one layer, K and V, between layer-first pools.

    Args:
        src_k: dense CPU tensor of [tokens, item] bytes.
        dst_k: likewise. Mutated.
        src_v: likewise.
        dst_v: likewise. Mutated.
        src_indices: int64 CPU [num_items].
        dst_indices: int64 CPU [num_items].
        item_size: bytes of an item.
        block_quota: without effect.
        num_warps_per_block: without effect.
    """
    del block_quota, num_warps_per_block
    limits = _tokens([src_k, src_v], item_size), _tokens([dst_k, dst_v], item_size)
    for src, dst in ((src_k, dst_k), (src_v, dst_v)):
        for s, d in _items(src_indices, dst_indices, limits):
            _copy(src.data_ptr() + s * item_size, dst.data_ptr() + d * item_size, item_size)


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
    limits = _tokens([src], item_size), _tokens([dst], item_size)
    for s, d in _items(src_indices, dst_indices, limits):
        _copy(src.data_ptr() + s * item_size, dst.data_ptr() + d * item_size, item_size)


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
    """Copies items of one layer, K and V, from [tokens, layers, item] to [tokens, item] bytes."""
    del block_quota, num_warps_per_block
    limits = _tokens([src_k, src_v], src_layout_dim), _tokens([dst_k, dst_v], item_size)
    for src, dst in ((src_k, dst_k), (src_v, dst_v)):
        for s, d in _items(src_indices, dst_indices, limits):
            source = src.data_ptr() + s * src_layout_dim + layer_id * item_size
            _copy(source, dst.data_ptr() + d * item_size, item_size)


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
    limits = _tokens([src], src_layout_dim), _tokens([dst], item_size)
    for s, d in _items(src_indices, dst_indices, limits):
        source = src.data_ptr() + s * src_layout_dim + layer_id * item_size
        _copy(source, dst.data_ptr() + d * item_size, item_size)


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
    """Copies items of one layer, K and V, from page-head to layer-first pools.

    Args:
        src_k: dense CPU tensor of [pages, heads, page_size, layers, head] bytes.
        dst_k: dense CPU tensor of [tokens, heads, head] bytes. Mutated.
        src_v: as src_k.
        dst_v: as dst_k. Mutated.
        src_indices: int64 CPU [num_items].
        dst_indices: int64 CPU [num_items].
        layer_id: of the source.
        item_size: bytes of all heads.
        src_layout_dim: bytes of a token, all layers and heads.
        page_size: tokens of a page.
        head_num: heads of an item.
        block_quota: without effect.
        num_warps_per_block: without effect.
    """
    del block_quota, num_warps_per_block
    page_bytes, head = page_size * src_layout_dim, item_size // head_num
    pages = _tokens([src_k, src_v], page_bytes)
    limits = pages * page_size, _tokens([dst_k, dst_v], item_size)
    shape = (pages, head_num, page_size, src_layout_dim // item_size, head)
    for src, dst in ((src_k, dst_k), (src_v, dst_v)):
        for s, d in _items(src_indices, dst_indices, limits):
            for h in range(head_num):
                place = _flat((s // page_size, h, s % page_size, layer_id, 0), shape)
                _copy(src.data_ptr() + place, dst.data_ptr() + d * item_size + h * head, head)


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
    """Copies items of all layers, K and V, between layer-first pools given by their addresses.

    Args:
        src_k_layers: uint64 CPU [num_layers], addresses of [tokens, item] bytes on the CPU.
        dst_k_layers: likewise; the memory behind it is mutated.
        src_v_layers: likewise.
        dst_v_layers: likewise; the memory behind it is mutated.
        src_indices: int64 CPU [num_items].
        dst_indices: int64 CPU [num_items].
        item_size: bytes of an item.
        num_layers: length of the tables.
        block_quota: without effect.
        num_warps_per_block: without effect.
    """
    for src, dst in ((src_k_layers, dst_k_layers), (src_v_layers, dst_v_layers)):
        transfer_kv_all_layer_mla(
            *(src, dst, src_indices, dst_indices, item_size, num_layers),
            *(block_quota, num_warps_per_block),
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
    for layer in range(num_layers):
        for s, d in _items(src_indices, dst_indices, (None, None)):
            source = _address(src_layers, layer) + s * item_size
            _copy(source, _address(dst_layers, layer) + d * item_size, item_size)


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
    """Copies items of all layers, K and V, to pools of [tokens, layers, item] bytes."""
    del block_quota, num_warps_per_block
    limits = None, _tokens([dst_k, dst_v], dst_layout_dim)
    for src, dst in ((src_k_layers, dst_k), (src_v_layers, dst_v)):
        for layer in range(num_layers):
            for s, d in _items(src_indices, dst_indices, limits):
                target = dst.data_ptr() + d * dst_layout_dim + layer * item_size
                _copy(_address(src, layer) + s * item_size, target, item_size)


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
    limits = None, _tokens([dst], dst_layout_dim)
    for layer in range(num_layers):
        for s, d in _items(src_indices, dst_indices, limits):
            target = dst.data_ptr() + d * dst_layout_dim + layer * item_size
            _copy(_address(src_layers, layer) + s * item_size, target, item_size)


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
    """Copies items of all layers to pools of [pages, heads, page_size, layers, head] bytes."""
    del block_quota, num_warps_per_block
    page_bytes, head = page_size * dst_layout_dim, item_size // head_num
    pages = _tokens([dst_k, dst_v], page_bytes)
    shape = (pages, head_num, page_size, dst_layout_dim // item_size, head)
    for src, dst in ((src_k_layers, dst_k), (src_v_layers, dst_v)):
        for layer, h in product(range(num_layers), range(head_num)):
            for s, d in _items(src_indices, dst_indices, (None, pages * page_size)):
                place = _flat((d // page_size, h, d % page_size, layer, 0), shape)
                source = _address(src, layer) + s * item_size + h * head
                _copy(source, dst.data_ptr() + place, head)


def transfer_kv_direct(
    src_layers: Sequence[Tensor],
    dst_layers: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    page_size: int,
) -> None:
    """Copies items of any number of layers between layer-first pools.

    Args:
        src_layers: CPU tensors [tokens, *item] with dense items.
        dst_layers: CPU tensors [tokens, *item] with dense items. Mutated.
        src_indices: int64 CPU [num_items].
        dst_indices: int64 CPU [num_items].
        page_size: without effect.
    """
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
    """Copies rows ``src_starts[i] + k`` of ``src`` to rows ``dst_starts[i] + k`` of ``dst``.

    Args:
        src: CPU tensor [rows, *row] with dense rows.
        dst: likewise. Mutated.
        src_starts: first rows of ranges in ``src``.
        dst_starts: first rows of ranges in ``dst``.
        lengths: rows of each range.
    """
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
    """Copies items of some layers from page-first pools to layer-first ones.

    Args:
        src_ptrs: one (MLA) or two (K, V) CPU tensors [pages, layers, page_size, *item].
        dst_ptrs: CPU tensors [tokens, *item]: layers from ``layer_id`` on, of K, then of V.
            Mutated.
        src_indices: int64 CPU [num_items].
        dst_indices: int64 CPU [num_items].
        layer_id: the first layer.
        page_size: tokens of a page.
    """
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
    """Copies items of all layers from layer-first pools to page-first ones.

    Args:
        src_ptrs: CPU tensors [tokens, *item]: layers 0, 1, ... of K, then of V.
        dst_ptrs: one (MLA) or two (K, V) CPU tensors [pages, layers, page_size, *item]. Mutated.
        src_indices: int64 CPU [num_items].
        dst_indices: int64 CPU [num_items].
        page_size: tokens of a page.
    """
    layers = len(src_ptrs) // len(dst_ptrs)
    limits = _least_rows(src_ptrs), _least_rows(dst_ptrs) * page_size
    for s, d in _items(src_indices, dst_indices, limits):
        for i, src in enumerate(src_ptrs):
            pool, layer = dst_ptrs[i // layers], i % layers
            _copy_row(src[s], pool[d // page_size, layer, d % page_size])


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
