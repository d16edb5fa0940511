"""Builds the arguments that gathers share: paged caches, tables of requests, poisoned rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# In table entries that no position needs: nobody may look at them.
DEAD_ENTRY = 2147480000
_POISON_BYTE = 0x7F


@dataclass(frozen=True)
class Requests:
    """Requests whose blocks lie anywhere in a cache of `num_blocks` blocks; int32 on the CPU.

    Every request has blocks of its own, and the cache a few that nobody has.
    """

    block_table: Tensor
    cu_seq_lens: Tensor
    token_to_seq: Tensor
    seq_starts: Tensor
    num_blocks: int

    @property
    def num_requests(self) -> int:
        return self.block_table.size(0)

    @property
    def num_rows(self) -> int:
        return int(self.cu_seq_lens[-1])


def make_requests(
    lengths: Sequence[int],
    block_size: int,
    generator: torch.Generator,
    starts: Sequence[int] | None = None,
) -> Requests:
    """Requests that gather `lengths[b]` positions from `starts[b]` (0) on."""
    starts = starts or [0] * len(lengths)
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    needed = [-(-end // block_size) for end in ends]
    num_blocks = sum(needed) + 3
    ids = torch.randperm(num_blocks, generator=generator)
    # Rows of the table are not neighbours, as in a slice of the scheduler's table.
    table = torch.full((len(lengths), max(needed, default=0) + 3), DEAD_ENTRY, dtype=torch.int32)
    taken = 0
    for request, blocks in enumerate(needed):
        table[request, :blocks] = ids[taken : taken + blocks]
        taken += blocks
    lengths_int32 = torch.tensor(lengths, dtype=torch.int32)
    return Requests(
        block_table=table[:, :-2],
        cu_seq_lens=torch.tensor([0, *lengths]).cumsum(0).int(),
        token_to_seq=torch.arange(len(lengths)).int().repeat_interleave(lengths_int32),
        seq_starts=torch.tensor(starts, dtype=torch.int32),
        num_blocks=num_blocks,
    )


def paged(tokens: Sequence[Tensor], requests: Requests, block_size: int) -> Tensor:
    """A cache that holds `tokens[b]` ([length, *entry]) as the positions 0, 1, ... of request b."""
    shape = [requests.num_blocks, block_size, *tokens[0].shape[1:]]
    cache = poisoned(shape, tokens[0].dtype)
    for table, entries in zip(requests.block_table, tokens, strict=True):
        for position, entry in enumerate(entries):
            cache[table[position // block_size], position % block_size] = entry
    return cache


def random_bits(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Any bits: all NaNs, infinities and subnormals of a dtype are among them."""
    *outer, inner = shape
    size = [*outer, inner * dtype.itemsize]
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).view(dtype)


def poisoned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor in which a byte that nobody writes can be told."""
    *outer, inner = shape
    return torch.full([*outer, inner * dtype.itemsize], _POISON_BYTE, dtype=torch.uint8).view(dtype)


def packed_cache(cache: Tensor) -> Tensor:
    """The same entries as part of a larger allocation: room between entries and between blocks."""
    entry_stride = cache[0, 0].numel() + 16
    block_stride = entry_stride * (cache.size(1) + 1)
    room = random_bits([cache.size(0) * block_stride], cache.dtype, torch.Generator())
    view = room.as_strided(cache.shape, (block_stride, entry_stride, *cache.stride()[2:]))
    return view.copy_(cache)
