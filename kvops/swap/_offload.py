"""A block manager's view of swaps: blocks of all layers, out to a pinned pool and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..pinned_pool import PinnedPool
from ._blocks import swap_blocks_batch

Ids = Sequence[int] | Tensor


def offload(
    caches: Sequence[Tensor], block_ids: Ids, pool: PinnedPool, pages: Ids | None = None
) -> list[int]:
    """Copy blocks of all layer caches to pages of a pool, with one call.

    Args:
        caches: one tensor for each layer (or for its K and its V: `cache.unbind(0)`), all with
            the same number of blocks in dimension 0; a block fills its memory without gaps. Sizes
            and dtypes may differ from layer to layer.
        block_ids: the blocks, on the CPU.
        pool: where they go. Page `pages[i]` gets block `block_ids[i]` of every cache, one after
            the other in the order of `caches`.
        pages: pages that the caller has taken from the pool; None takes them.

    Returns:
        The pages, in the order of `block_ids`.

    Raises:
        RuntimeError: a block or page id is out of range, lists differ in length, a block has gaps,
            or a page is too small for a block of every cache. Nothing is copied then.
        MemoryError: the pool has fewer free pages than blocks; none is taken then.

    Note:
        Work of the current stream, as :func:`swap_blocks_batch`: the blocks may be written again
        by later work of that stream at once, and pages may be read by the host when the stream has
        got there. Device memory is read in STREAM order: kernels before the call on that stream
        have written the blocks, and a copy must not overtake them.

    Example:
        >>> import kvops, torch
        >>> layers = [torch.rand(10, 4, 8) for _ in range(3)]
        >>> pool = kvops.PinnedPool(6, 3 * 4 * 8 * 4, pin=False)  # pinned where there is a GPU
        >>> pages = kvops.swap.offload(layers, [7, 2], pool)
        >>> kvops.swap.reload(layers, [5, 6], pool, pages)
        >>> all(torch.equal(layer[[7, 2]], layer[[5, 6]]) for layer in layers)
        True
    """
    op = "offload"
    blocks = _ids(op, "block_ids", block_ids, _num_blocks(op, caches))
    sizes, strides = _block_bytes(op, caches, pool)
    taken = pool.allocate(len(blocks)) if pages is None else None
    try:
        targets = _ids(op, "pages", taken if taken is not None else pages, pool.num_pages)
        _check_lengths(op, blocks, targets)
        sources = _addresses(caches, strides, blocks)
        _swap(sources, _page_addresses(pool, sizes, targets), sizes, any_order=False)
        pool.note_writes(next((c.device for c in caches if c.is_cuda), None))
    except BaseException:
        if taken is not None:
            pool.free(taken)
        raise
    return targets.tolist()


def reload(caches: Sequence[Tensor], block_ids: Ids, pool: PinnedPool, pages: Ids) -> None:
    """Copy what :func:`offload` has put into pages to blocks of all layer caches, with one call.

    Args:
        caches: as for :func:`offload`, in the same order.
        block_ids: the blocks to write, on the CPU; none twice.
        pool: where the pages are.
        pages: page `pages[i]` goes to block `block_ids[i]`.

    Raises:
        RuntimeError: as :func:`offload`, or a block is named twice. Nothing is copied then.

    Note:
        Work of the current stream: blocks are written after what that stream has, and before what
        it gets next. Pages are read in ANY order, which lets a copy begin before earlier work of
        the stream is done: nobody writes to host memory by then. Only while an :func:`offload` to
        this pool is still under way, or one was captured into a graph, it is STREAM order; wait
        for the other stream's event if it went by another stream. Pages must not be given back to
        the pool before the stream has got there.
    """
    op = "reload"
    blocks = _ids(op, "block_ids", block_ids, _num_blocks(op, caches))
    sources = _ids(op, "pages", pages, pool.num_pages)
    sizes, strides = _block_bytes(op, caches, pool)
    _check_lengths(op, blocks, sources)
    if len(torch.unique(blocks)) != len(blocks):
        raise RuntimeError(f"kvops.swap.{op}: block_ids must not name a block twice")
    targets = _addresses(caches, strides, blocks)
    any_order = not pool.has_pending_writes()
    _swap(_page_addresses(pool, sizes, sources), targets, sizes, any_order=any_order)


def _swap(sources: Tensor, targets: Tensor, sizes: Tensor, *, any_order: bool) -> None:
    copies = sizes[:, None].expand(sources.shape).flatten()
    swap_blocks_batch(sources.flatten(), targets.flatten(), copies, any_order)


def _fail(op: str, what: str) -> RuntimeError:
    return RuntimeError(f"kvops.swap.{op}: {what}")


def _num_blocks(op: str, caches: Sequence[Tensor]) -> int:
    numbers = {cache.size(0) if cache.dim() else 0 for cache in caches}
    if len(numbers) != 1:
        text = f"{sorted(numbers)}" if numbers else "no cache"
        raise _fail(op, f"caches must have one number of blocks in dimension 0, got {text}")
    return numbers.pop()


def _ids(op: str, name: str, ids: Ids, end: int) -> Tensor:
    """As int64 on the CPU, each in [0, end)."""
    table = torch.as_tensor(ids)
    is_list = table.dim() == 1 and not table.is_floating_point() and not table.is_complex()
    if not table.is_cpu or (table.numel() and not is_list):  # [] is a list of floats to torch
        got = f"{table.dtype} {list(table.shape)} on {table.device}"
        raise _fail(op, f"{name} must be a list of integers on the CPU, got {got}")
    table = table.to(torch.int64).flatten()
    bad = ((table < 0) | (table >= end)).nonzero()
    if len(bad):
        at = int(bad[0])
        raise _fail(op, f"{name}[{at}] must be in [0, {end}), got {int(table[at])}")
    return table


def _check_lengths(op: str, blocks: Tensor, pages: Tensor) -> None:
    if len(blocks) != len(pages):
        raise _fail(op, f"pages must be as many as block_ids, {len(blocks)}, got {len(pages)}")


def _block_bytes(op: str, caches: Sequence[Tensor], pool: PinnedPool) -> tuple[Tensor, Tensor]:
    """Bytes of a block of each cache, and the distance from one to the next."""
    sizes, strides = [], []
    for index, cache in enumerate(caches):
        block_elems = cache.numel() // max(cache.size(0), 1)
        block = cache[:1]
        dense = sorted((block.stride(i), block.size(i)) for i in range(1, block.dim()))
        expected = 1
        for stride, size in dense:
            if size > 1 and stride != expected:
                raise _fail(op, f"blocks of caches[{index}] must fill their memory without gaps")
            expected *= size
        sizes.append(block_elems * cache.element_size())
        strides.append(cache.stride(0) * cache.element_size())
    if sum(sizes) > pool.page_bytes:
        needed = f"{sum(sizes)} bytes, a block of every cache"
        raise _fail(op, f"pages of the pool must have at least {needed}, got {pool.page_bytes}")
    return torch.tensor(sizes), torch.tensor(strides)


def _addresses(caches: Sequence[Tensor], strides: Tensor, blocks: Tensor) -> Tensor:
    """[caches, blocks]"""
    starts = torch.tensor([cache.data_ptr() for cache in caches])
    return starts[:, None] + strides[:, None] * blocks


def _page_addresses(pool: PinnedPool, sizes: Tensor, pages: Tensor) -> Tensor:
    """[caches, pages]: a page holds a block of every cache, one after the other."""
    offsets = sizes.cumsum(0) - sizes
    return pool.pages.data_ptr() + offsets[:, None] + pool.page_bytes * pages
