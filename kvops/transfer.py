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

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def transfer_kv_per_layer(
    src_k: Tensor,
    dst_k: Tensor,
    src_v: Tensor,
    dst_v: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer, K and V, between layer-first pools.

    Args:
        src_k: [tokens, *item], K of one layer: dense, of any dtype (its bytes count), on the GPU of
            the indices or on the host.
        dst_k: likewise. Written.
        src_v: as src_k, of V.
        dst_v: as dst_k, of V. Written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of, in [0, tokens of the source).
        dst_indices: int64 [num_items], likewise, in [0, tokens of the target).
        item_size: bytes of an item, a positive multiple of 8.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Host memory should be pinned: a kernel then reads and writes it in place. With
        pageable memory the call is right, but slow: it waits for the stream, to copy the indices to
        the host and plan there; under capture it is refused.

    Source:
        SGLang `sgl_kernel::transfer_kv_per_layer`, which checks no upper bound of an index, no
        size and no memory.
    """
    torch.ops.kvops.transfer_kv_per_layer.default(
        src_k,
        dst_k,
        src_v,
        dst_v,
        src_indices,
        dst_indices,
        item_size,
        block_quota,
        num_warps_per_block,
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
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer, K and V, from page-first to layer-first pools.

    Args:
        src_k: [tokens, layers, *item], K of all layers: dense, of any dtype (its bytes count), on
            the GPU of the indices or on the host.
        dst_k: [tokens, *item], K of one layer: likewise. Written.
        src_v: as src_k, of V.
        dst_v: as dst_k, of V. Written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of, in [0, tokens of the source).
        dst_indices: int64 [num_items], likewise, in [0, tokens of the target).
        layer_id: the layer of the source, in [0, src_layout_dim / item_size).
        item_size: bytes of an item, a positive multiple of 8.
        src_layout_dim: bytes of a token in the source, all layers; a multiple of `item_size`.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Host memory should be pinned: a kernel then reads and writes it in place. With
        pageable memory the call is right, but slow: it waits for the stream, to copy the indices to
        the host and plan there; under capture it is refused.

    Source:
        SGLang `sgl_kernel::transfer_kv_per_layer_pf_lf`, which checks no upper bound of an
        index, no size and no memory.
    """
    torch.ops.kvops.transfer_kv_per_layer_pf_lf.default(
        src_k,
        dst_k,
        src_v,
        dst_v,
        src_indices,
        dst_indices,
        layer_id,
        item_size,
        src_layout_dim,
        block_quota,
        num_warps_per_block,
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
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer, K and V, from page-head to layer-first pools.

    Args:
        src_k: [pages, heads, page_size, layers, head_dim], K of all layers: dense, of any dtype
            (its bytes count), on the GPU of the indices or on the host.
        dst_k: [tokens, heads, head_dim], K of one layer: likewise. Written.
        src_v: as src_k, of V.
        dst_v: as dst_k, of V. Written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of, in [0, tokens of the source).
        dst_indices: int64 [num_items], likewise, in [0, tokens of the target).
        layer_id: the layer of the source, in [0, src_layout_dim / item_size).
        item_size: bytes of an item, a positive multiple of 8.
        src_layout_dim: bytes of a token in the source, all layers; a multiple of `item_size`.
        page_size: tokens of a page; positive.
        head_num: heads of an item; divides it into multiples of 8 bytes.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Host memory should be pinned: a kernel then reads and writes it in place. With
        pageable memory the call is right, but slow: it waits for the stream, to copy the indices to
        the host and plan there; under capture it is refused.

    Source:
        SGLang `sgl_kernel::transfer_kv_per_layer_ph_lf`, which follows negative indices, and
        cuts off what heads have beyond a multiple of 8 bytes.
    """
    torch.ops.kvops.transfer_kv_per_layer_ph_lf.default(
        src_k,
        dst_k,
        src_v,
        dst_v,
        src_indices,
        dst_indices,
        layer_id,
        item_size,
        src_layout_dim,
        page_size,
        head_num,
        block_quota,
        num_warps_per_block,
    )


def transfer_kv_per_layer_mla(
    src: Tensor,
    dst: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer of an MLA cache between layer-first pools.

    Args:
        src: [tokens, *item], one layer: dense, of any dtype (its bytes count), on the GPU of the
            indices or on the host.
        dst: likewise. Written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of, in [0, tokens of the source).
        dst_indices: int64 [num_items], likewise, in [0, tokens of the target).
        item_size: bytes of an item, a positive multiple of 8.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Host memory should be pinned: a kernel then reads and writes it in place. With
        pageable memory the call is right, but slow: it waits for the stream, to copy the indices to
        the host and plan there; under capture it is refused.

    Source:
        SGLang `sgl_kernel::transfer_kv_per_layer_mla`, which checks no upper bound of an index,
        no size and no memory.
    """
    torch.ops.kvops.transfer_kv_per_layer_mla.default(
        src,
        dst,
        src_indices,
        dst_indices,
        item_size,
        block_quota,
        num_warps_per_block,
    )


def transfer_kv_per_layer_mla_pf_lf(
    src: Tensor,
    dst: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    item_size: int,
    src_layout_dim: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of one layer of an MLA cache from a page-first to a layer-first pool.

    Args:
        src: [tokens, layers, *item], all layers: dense, of any dtype (its bytes count), on the GPU
            of the indices or on the host.
        dst: [tokens, *item], one layer: likewise. Written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of, in [0, tokens of the source).
        dst_indices: int64 [num_items], likewise, in [0, tokens of the target).
        layer_id: the layer of the source, in [0, src_layout_dim / item_size).
        item_size: bytes of an item, a positive multiple of 8.
        src_layout_dim: bytes of a token in the source, all layers; a multiple of `item_size`.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Host memory should be pinned: a kernel then reads and writes it in place. With
        pageable memory the call is right, but slow: it waits for the stream, to copy the indices to
        the host and plan there; under capture it is refused.

    Source:
        SGLang `sgl_kernel::transfer_kv_per_layer_mla_pf_lf`, which checks no upper bound of an
        index, no size and no memory.
    """
    torch.ops.kvops.transfer_kv_per_layer_mla_pf_lf.default(
        src,
        dst,
        src_indices,
        dst_indices,
        layer_id,
        item_size,
        src_layout_dim,
        block_quota,
        num_warps_per_block,
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
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers, K and V, between layer-first pools given by their addresses.

    Args:
        src_k_layers: uint64 or int64 [num_layers], stride 1, where the indices are: for each layer
            the address of a pool [tokens, *item], K.
        dst_k_layers: likewise; the memory behind it is written.
        src_v_layers: as src_k_layers, of V.
        dst_v_layers: as dst_k_layers, of V; the memory behind it is written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of. Upper bounds are not known: negative ones are skipped.
        dst_indices: int64 [num_items], likewise.
        item_size: bytes of an item, a positive multiple of 8.
        num_layers: length of the tables; positive.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Addresses are taken at their word: memory behind them must be on that GPU, or
        pinned, and reach as far as the indices do, or the process may end. A null address is
        skipped (and recorded); on the CPU it raises. Compilers cannot see that memory:
        `torch.compile` breaks the graph here.

    Source:
        SGLang `sgl_kernel::transfer_kv_all_layer`, which looks at no address, and at one
        table's length only.
    """
    torch.ops.kvops.transfer_kv_all_layer.default(
        src_k_layers,
        dst_k_layers,
        src_v_layers,
        dst_v_layers,
        src_indices,
        dst_indices,
        item_size,
        num_layers,
        block_quota,
        num_warps_per_block,
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
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers, K and V, from layer-first pools to page-first ones.

    Args:
        src_k_layers: uint64 or int64 [num_layers], stride 1, where the indices are: for each layer
            the address of a pool [tokens, *item], K.
        dst_k: [tokens, layers, *item], K of all layers: dense, of any dtype (its bytes count), on
            the GPU of the indices or on the host. Written.
        src_v_layers: as src_k_layers, of V.
        dst_v: as dst_k, of V. Written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of. Its upper bound is not known: negative ones are skipped.
        dst_indices: int64 [num_items], likewise, in [0, tokens of the target).
        item_size: bytes of an item, a positive multiple of 8.
        dst_layout_dim: bytes of a token in the target, all layers; a multiple of `item_size`.
        num_layers: length of the tables, at most dst_layout_dim / item_size; positive.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Addresses are taken at their word: memory behind them must be on that GPU, or
        pinned, and reach as far as the indices do, or the process may end. A null address is
        skipped (and recorded); on the CPU it raises. Compilers cannot see that memory:
        `torch.compile` breaks the graph here.

    Source:
        SGLang `sgl_kernel::transfer_kv_all_layer_lf_pf`, which checks no upper bound of an
        index, no size and no memory.
    """
    torch.ops.kvops.transfer_kv_all_layer_lf_pf.default(
        src_k_layers,
        dst_k,
        src_v_layers,
        dst_v,
        src_indices,
        dst_indices,
        item_size,
        dst_layout_dim,
        num_layers,
        block_quota,
        num_warps_per_block,
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
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers, K and V, from layer-first pools to page-head ones.

    Args:
        src_k_layers: uint64 or int64 [num_layers], stride 1, where the indices are: for each layer
            the address of a pool [tokens, heads, head_dim], K.
        dst_k: [pages, heads, page_size, layers, head_dim], K of all layers: dense, of any dtype
            (its bytes count), on the GPU of the indices or on the host. Written.
        src_v_layers: as src_k_layers, of V.
        dst_v: as dst_k, of V. Written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of. Its upper bound is not known: negative ones are skipped.
        dst_indices: int64 [num_items], likewise, in [0, tokens of the target).
        item_size: bytes of an item, a positive multiple of 8.
        dst_layout_dim: bytes of a token in the target, all layers; a multiple of `item_size`.
        num_layers: length of the tables, at most dst_layout_dim / item_size; positive.
        page_size: tokens of a page; positive.
        head_num: heads of an item; divides it into multiples of 8 bytes.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Addresses are taken at their word: memory behind them must be on that GPU, or
        pinned, and reach as far as the indices do, or the process may end. A null address is
        skipped (and recorded); on the CPU it raises. Compilers cannot see that memory:
        `torch.compile` breaks the graph here.

    Source:
        SGLang `sgl_kernel::transfer_kv_all_layer_lf_ph`, which follows negative indices, and
        cuts off what heads have beyond a multiple of 8 bytes.
    """
    torch.ops.kvops.transfer_kv_all_layer_lf_ph.default(
        src_k_layers,
        dst_k,
        src_v_layers,
        dst_v,
        src_indices,
        dst_indices,
        item_size,
        dst_layout_dim,
        num_layers,
        page_size,
        head_num,
        block_quota,
        num_warps_per_block,
    )


def transfer_kv_all_layer_mla(
    src_layers: Tensor,
    dst_layers: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    num_layers: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers of an MLA cache between layer-first pools given by their addresses.

    Args:
        src_layers: uint64 or int64 [num_layers], stride 1, where the indices are: for each layer
            the address of a pool [tokens, *item].
        dst_layers: likewise; the memory behind it is written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of. Upper bounds are not known: negative ones are skipped.
        dst_indices: int64 [num_items], likewise.
        item_size: bytes of an item, a positive multiple of 8.
        num_layers: length of the tables; positive.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Addresses are taken at their word: memory behind them must be on that GPU, or
        pinned, and reach as far as the indices do, or the process may end. A null address is
        skipped (and recorded); on the CPU it raises. Compilers cannot see that memory:
        `torch.compile` breaks the graph here.

    Source:
        SGLang `sgl_kernel::transfer_kv_all_layer_mla`, which looks at no address, and at one
        table's length only.
    """
    torch.ops.kvops.transfer_kv_all_layer_mla.default(
        src_layers,
        dst_layers,
        src_indices,
        dst_indices,
        item_size,
        num_layers,
        block_quota,
        num_warps_per_block,
    )


def transfer_kv_all_layer_mla_lf_pf(
    src_layers: Tensor,
    dst: Tensor,
    src_indices: Tensor,
    dst_indices: Tensor,
    item_size: int,
    dst_layout_dim: int,
    num_layers: int,
    block_quota: int = 8,
    num_warps_per_block: int = 32,
) -> None:
    """Copy items of all layers of an MLA cache from layer-first pools to a page-first one.

    Args:
        src_layers: uint64 or int64 [num_layers], stride 1, where the indices are: for each layer
            the address of a pool [tokens, *item].
        dst: [tokens, layers, *item], all layers: dense, of any dtype (its bytes count), on the GPU
            of the indices or on the host. Written.
        src_indices: int64 [num_items], stride 1, on the GPU that copies (all on the CPU: there);
            which token each item is of. Its upper bound is not known: negative ones are skipped.
        dst_indices: int64 [num_items], likewise, in [0, tokens of the target).
        item_size: bytes of an item, a positive multiple of 8.
        dst_layout_dim: bytes of a token in the target, all layers; a multiple of `item_size`.
        num_layers: length of the tables, at most dst_layout_dim / item_size; positive.
        block_quota: at most so many thread blocks; positive. Ignored on the CPU.
        num_warps_per_block: at most so many warps in each; positive. Ignored on the CPU.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the indices' GPU; nothing synchronises, and calls can be
        captured. Addresses are taken at their word: memory behind them must be on that GPU, or
        pinned, and reach as far as the indices do, or the process may end. A null address is
        skipped (and recorded); on the CPU it raises. Compilers cannot see that memory:
        `torch.compile` breaks the graph here.

    Source:
        SGLang `sgl_kernel::transfer_kv_all_layer_mla_lf_pf`, which checks no upper bound of an
        index, no size and no memory.
    """
    torch.ops.kvops.transfer_kv_all_layer_mla_lf_pf.default(
        src_layers,
        dst,
        src_indices,
        dst_indices,
        item_size,
        dst_layout_dim,
        num_layers,
        block_quota,
        num_warps_per_block,
    )


def transfer_kv_direct(
    src_layers: Sequence[Tensor],
    dst_layers: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    page_size: int,
) -> None:
    """Copy items of any number of layers between layer-first pools.

    Args:
        src_layers: a tensor [tokens, *item] for each layer of K, V or whatever there is: any dtype,
            items dense, any stride of tokens; all on the host or on one GPU.
        dst_layers: as many, with the dtypes and items of `src_layers`; all on the host or on one
            GPU, the same if both are on one. Items do not overlap. Written.
        src_indices: int64 [num_items], stride 1, on the host or on that GPU: which token each item
            is of, in [0, tokens that every layer of the source has).
        dst_indices: int64 [num_items], likewise, of the target.
        page_size: positive; divides num_items.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the target's GPU (the source's, if the target is on the host).
        Indices on the GPU are copied to the host first, which waits for the stream: the one
        synchronisation, and refused under capture. Indices on the host cost none, and calls can be
        captured with them; they are read before the call returns. Host memory should be pinned.
        Neighbours are copied as one; on the CPU copies take effect in order.

    Source:
        SGLang `sgl_kernel::transfer_kv_direct`, which takes negative indices for counts from
        the end.
    """
    torch.ops.kvops.transfer_kv_direct.default(
        src_layers,
        dst_layers,
        src_indices,
        dst_indices,
        page_size,
    )


def transfer_embedding_ranges_direct(
    src: Tensor,
    dst: Tensor,
    src_starts: Sequence[int],
    dst_starts: Sequence[int],
    lengths: Sequence[int],
) -> None:
    """Copy ranges of rows of one tensor to another.

    Args:
        src: [rows, *row], any dtype, rows dense, any stride of rows; on the host or on a GPU.
        dst: likewise, with the dtype and row of `src`; on the host or on a GPU, the same if both
            are on one. Rows do not overlap. Written.
        src_starts: the first row of each range in `src`.
        dst_starts: the first row of each range in `dst`; as many.
        lengths: rows of each range; as many, not negative. Ranges lie within both tensors: a range
            that does not always raises.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the target's GPU (the source's, if the target is on the host);
        nothing synchronises where host memory is pinned, and calls can be captured. Neighbours are
        copied as one; on the CPU copies take effect in order.

    Source:
        SGLang `sgl_kernel::transfer_embedding_ranges_direct`, of which only the schema and the
        tests are known here.
    """
    torch.ops.kvops.transfer_embedding_ranges_direct.default(
        src,
        dst,
        src_starts,
        dst_starts,
        lengths,
    )


def transfer_kv_per_layer_direct_pf_lf(
    src_ptrs: Sequence[Tensor],
    dst_ptrs: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    layer_id: int,
    page_size: int,
) -> None:
    """Copy items of some layers from page-first pools to layer-first ones.

    Args:
        src_ptrs: a tensor [pages, layers, page_size, *item] (MLA), or one of K and one of V: any
            dtype, pages of a layer dense, any stride of pages and layers; on the host or on one
            GPU.
        dst_ptrs: tensors [tokens, *item]: the layers from `layer_id` on, first those of K, then as
            many of V; with the dtype and items of `src_ptrs`, on the host or on one GPU, the same
            if both are on one. Items do not overlap. Written.
        src_indices: int64 [num_items], stride 1, on the host or on that GPU: which token each item
            is of, in [0, tokens that every layer of the source has).
        dst_indices: int64 [num_items], likewise, of the target.
        layer_id: the first layer, with room for all of `dst_ptrs`.
        page_size: tokens of a page; divides num_items.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the target's GPU (the source's, if the target is on the host).
        Indices on the GPU are copied to the host first, which waits for the stream: the one
        synchronisation, and refused under capture. Indices on the host cost none, and calls can be
        captured with them; they are read before the call returns. Host memory should be pinned.
        Neighbours are copied as one; on the CPU copies take effect in order.

    Source:
        SGLang `sgl_kernel::transfer_kv_per_layer_direct_pf_lf`, which looks at the first index
        of each page only; the results differ where others do not follow it.
    """
    torch.ops.kvops.transfer_kv_per_layer_direct_pf_lf.default(
        src_ptrs,
        dst_ptrs,
        src_indices,
        dst_indices,
        layer_id,
        page_size,
    )


def transfer_kv_all_layer_direct_lf_pf(
    src_ptrs: Sequence[Tensor],
    dst_ptrs: Sequence[Tensor],
    src_indices: Tensor,
    dst_indices: Tensor,
    page_size: int,
) -> None:
    """Copy items of all layers from layer-first pools to page-first ones.

    Args:
        src_ptrs: tensors [tokens, *item]: layers 0, 1, ... of K, then as many of V (MLA: of the one
            pool): any dtype, items dense, any stride of tokens; on the host or on one GPU.
        dst_ptrs: a tensor [pages, layers, page_size, *item] (MLA), or one of K and one of V, with
            the dtype and items of `src_ptrs`: pages of a layer dense and without overlap, any
            stride of pages and layers; on the host or on one GPU, the same if both are on one.
            Written.
        src_indices: int64 [num_items], stride 1, on the host or on that GPU: which token each item
            is of, in [0, tokens that every layer of the source has).
        dst_indices: int64 [num_items], likewise, of the target.
        page_size: tokens of a page; divides num_items.

    Raises:
        RuntimeError: shapes, dtypes, strides, devices or sizes are not as above, or lengths of the
            indices differ. Nothing is written then.

    Note:
        Work of the current stream of the target's GPU (the source's, if the target is on the host).
        Indices on the GPU are copied to the host first, which waits for the stream: the one
        synchronisation, and refused under capture. Indices on the host cost none, and calls can be
        captured with them; they are read before the call returns. Host memory should be pinned.
        Neighbours are copied as one; on the CPU copies take effect in order.

    Source:
        SGLang `sgl_kernel::transfer_kv_all_layer_direct_lf_pf`, which looks at the first index
        of each page only; the results differ where others do not follow it.
    """
    torch.ops.kvops.transfer_kv_all_layer_direct_lf_pf.default(
        src_ptrs,
        dst_ptrs,
        src_indices,
        dst_indices,
        page_size,
    )
