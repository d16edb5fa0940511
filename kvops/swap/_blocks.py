"""The two operators: whole blocks copied between memory pools, on the host and on GPUs."""

from __future__ import annotations

import torch
from torch import Tensor


def swap_blocks(src: Tensor, dst: Tensor, block_size_in_bytes: int, block_mapping: Tensor) -> None:
    """Copy blocks of `src` to blocks of `dst`.

    Block i of a tensor is the `block_size_in_bytes` bytes that start `i * block_size_in_bytes`
    after its first element, whatever its shape and dtype.

    Args:
        src: any shape and dtype, on the CPU or on a GPU; its elements fill their memory without
            gaps, with the dimensions in any order.
        dst: likewise; shape, dtype and device need not be those of `src`. Written. May be `src`, or
            share memory with it.
        block_size_in_bytes: size of a block; positive unless `block_mapping` is empty.
        block_mapping: int64 [num_copies, 2] on the CPU, any strides: pairs of a block of `src` and
            a block of `dst`. A tensor of n bytes has `n // block_size_in_bytes` blocks.

    Raises:
        RuntimeError: a block id is out of range (always, in checked mode or not; the message names
            the row), a tensor has gaps, or shapes, dtypes or devices are not as above. `dst` is
            untouched then.

    Note:
        Pairs take effect in order: a later one sees what an earlier one has copied. Large calls
        use several threads, or all of a GPU, where that cannot be told from the result; within one
        GPU, pairs that do depend on each other are copied by one thread block, slowly.

        With a tensor on a GPU this is work of the current stream of that GPU, of `dst`'s between
        two (in order with `src`'s current stream as well). Tensors on the host should be pinned:
        with others the call is right, but it may wait for the copies. Under CUDA graph capture it
        becomes part of the graph; `block_mapping` is read before the call returns.

    Source:
        vLLM 0.23 `_C_cache_ops::swap_blocks`, which leaves host to host and copies between GPUs
        undefined and checks no id and no return code.
    """
    torch.ops.kvops.swap_blocks.default(src, dst, block_size_in_bytes, block_mapping)


def swap_blocks_batch(
    src_ptrs: Tensor,
    dst_ptrs: Tensor,
    sizes: Tensor,
    is_src_access_order_any: bool = False,
) -> None:
    """Copy `sizes[i]` bytes from address `src_ptrs[i]` to address `dst_ptrs[i]`, for every i.

    Args:
        src_ptrs: int64 [num_copies] on the CPU, stride 1: raw addresses, as of `Tensor.data_ptr()`.
        dst_ptrs: likewise; the memory behind them is written.
        sizes: int64 [num_copies] on the CPU, stride 1, in bytes; 0 copies nothing, whatever the
            addresses.
        is_src_access_order_any: allows sources to be read out of stream order, even after the call
            has returned, in copies that involve a device: only for sources that are final before
            the call and stay so until the copies are done. That makes it safe from host to device,
            for host memory that nobody is still writing; and unsafe from device to host, where
            kernels earlier in the stream write the source and a copy might read it before them.
            Targets are written in stream order either way. Ignored from host to host, where a
            source has been read when the call returns.

    Raises:
        RuntimeError: a table is not as above or lengths differ; a size is negative; an address is
            null, or too high for its size, where there is something to copy (the message names the
            entry). Nothing is copied then. Also if `is_src_access_order_any` is set and a source is
            on a device, in checked mode; and if the driver refuses a copy, with its entry,
            addresses and size: others of the call may have been issued then.

    Warning:
        Addresses are taken at their word. Nothing can tell whether memory is behind them, how much
        there is, or whether it is still the tensor you mean: keep the tensors alive, and compute
        addresses from `data_ptr()`. A wrong address ends the process or overwrites other data.

    Note:
        If all memory is on the host, the copies are done when the call returns, and the result is
        that of `memmove` for one entry after the other: overlaps and chains are defined, and large
        calls use several threads where that cannot be told from the result.

        With an address on a device, the whole call is work of the current stream of torch's current
        device: after what that stream has already, and before what it gets next, the default stream
        included. Entries are then not ordered among themselves: one that reads or writes what
        another one writes, or its own source, has an undefined result. Directions may be mixed.
        Host memory should be pinned; with pageable memory the call is right, but slow, and may wait
        for the copies. The tables may be freed or changed as soon as the call returns. Under CUDA
        graph capture the copies become nodes of the graph, which owns what it replays.

        Adjacent entries are copied as one. Tables longer than `KVOPS_SWAP_MAX_DESCRIPTORS` (512
        by default) reach the driver in several calls. See :func:`last_path`.

        torch does not see these writes: no version counter moves, and autograd saves nothing. A
        compiler that believed the schema would drop or move the call, so it stays out of compiled
        graphs: `torch.compile` breaks the graph here, and raises with `fullgraph=True`.

    Example:
        >>> import kvops, torch
        >>> pool, host = torch.arange(8), torch.zeros(8, dtype=torch.int64)
        >>> block_bytes = 2 * pool.element_size()
        >>> kvops.swap_blocks_batch(
        ...     pool.data_ptr() + block_bytes * torch.tensor([3, 0]),
        ...     host.data_ptr() + block_bytes * torch.tensor([0, 2]),
        ...     torch.tensor([block_bytes, block_bytes]),
        ... )
        >>> host.tolist()
        [6, 7, 0, 0, 0, 1, 0, 0]

    Source:
        vLLM 0.23 `_C_cache_ops::swap_blocks_batch`, which checks no entry and assumes stride 1.
    """
    torch.ops.kvops.swap_blocks_batch.default(src_ptrs, dst_ptrs, sizes, is_src_access_order_any)
