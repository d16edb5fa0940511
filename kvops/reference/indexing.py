"""From slots and block tables to places in a paged cache, and which indices are skipped.

A cache has ``num_blocks`` blocks of ``block_size`` tokens. A *slot* is ``block * block_size +
offset``; a *block table* row lists the physical blocks of one request in logical order. Indices
come from device memory and are never trusted: a bad one is skipped, which writers and gathers
express by not visiting that token.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def written_slots(
    slot_mapping: Tensor, num_blocks: int, block_size: int
) -> Iterator[tuple[int, int, int]]:
    """Yields ``(token, block, offset)`` for every token that a cache writer writes.

    Slots outside ``[0, num_blocks * block_size)`` are skipped (-1 marks padding by convention).
    Tokens come in order, so of two tokens with one slot the later wins; the operators promise no
    order.
    """
    for token, slot in enumerate(slot_mapping.tolist()):
        if 0 <= slot < num_blocks * block_size:
            yield token, slot // block_size, slot % block_size


def locate(
    block_table: Tensor, request: int, position: int, num_blocks: int, block_size: int
) -> tuple[int, int] | None:
    """``(block, offset)`` of a request's token, None if the table has no valid block for it.

    Args:
        block_table: int32 [num_requests, max_blocks_per_request].
        request: row of ``block_table``.
        position: token position within the request.
    """
    if not 0 <= request < block_table.size(0):
        return None
    if not 0 <= position < block_table.size(1) * block_size:
        return None
    block = int(block_table[request, position // block_size])
    if not 0 <= block < num_blocks:
        return None
    return block, position % block_size
