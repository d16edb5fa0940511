"""Copies of whole blocks between host memory pools.

Source: vLLM 0.23 ``_C_cache_ops`` (which has no host-to-host form of ``swap_blocks``). Addresses
and ids come from the host, so bad ones raise, before a byte is written.
"""

from __future__ import annotations

import ctypes

from torch import Tensor


def swap_blocks(src: Tensor, dst: Tensor, block_size_in_bytes: int, block_mapping: Tensor) -> None:
    """Copies blocks of ``src`` to blocks of ``dst``, in the order of ``block_mapping``.

    Block i of a tensor is the ``block_size_in_bytes`` bytes that start ``i * block_size_in_bytes``
    after its first element, whatever its shape and strides.

    Args:
        src: any CPU tensor.
        dst: any CPU tensor; may share memory with ``src``: earlier pairs are seen by later ones.
            Mutated.
        block_size_in_bytes: size of a block.
        block_mapping: int64 CPU [num_pairs, 2] of (block of ``src``, block of ``dst``), any
            strides.

    Raises:
        RuntimeError: a block that is not inside its tensor's memory.
    """
    pairs = block_mapping.tolist()
    for source_block, target_block in pairs:
        _check_block("src", src, source_block, block_size_in_bytes)
        _check_block("dst", dst, target_block, block_size_in_bytes)
    for source_block, target_block in pairs:
        ctypes.memmove(
            dst.data_ptr() + target_block * block_size_in_bytes,
            src.data_ptr() + source_block * block_size_in_bytes,
            block_size_in_bytes,
        )


def _check_block(name: str, tensor: Tensor, block: int, block_bytes: int) -> None:
    storage = tensor.untyped_storage()
    available_bytes = storage.nbytes() - (tensor.data_ptr() - storage.data_ptr())
    if block_bytes < 0 or block < 0 or (block + 1) * block_bytes > available_bytes:
        raise RuntimeError(
            f"swap_blocks: block {block} of {block_bytes} bytes is not inside the "
            f"{available_bytes} bytes of {name}"
        )


def swap_blocks_batch(
    src_ptrs: Tensor, dst_ptrs: Tensor, sizes: Tensor, is_src_access_order_any: bool = False
) -> None:
    """Copies ``sizes[i]`` bytes from address ``src_ptrs[i]`` to ``dst_ptrs[i]``, for every i.

    The copies of one call are unordered, so they must not depend on each other.

    Args:
        src_ptrs: int64 CPU [num_copies], host addresses.
        dst_ptrs: int64 CPU [num_copies], host addresses.
        sizes: int64 CPU [num_copies], bytes.
        is_src_access_order_any: a licence for asynchronous copies; without effect on the result.

    Raises:
        RuntimeError: tables of different lengths, or a negative size.
    """
    del is_src_access_order_any
    if not src_ptrs.numel() == dst_ptrs.numel() == sizes.numel():
        raise RuntimeError("swap_blocks_batch: src_ptrs, dst_ptrs and sizes must have one length")
    copies = list(zip(src_ptrs.tolist(), dst_ptrs.tolist(), sizes.tolist(), strict=True))
    for index, (_, _, size) in enumerate(copies):
        if size < 0:
            raise RuntimeError(f"swap_blocks_batch: sizes[{index}] must not be negative: {size}")
    for source, target, size in copies:
        ctypes.memmove(_unsigned(target), _unsigned(source), size)


def _unsigned(address: int) -> int:
    """int64 tables hold addresses in two's complement."""
    return address & (2**64 - 1)
