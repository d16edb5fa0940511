"""Paged caches and slots for benchmarks: shuffled pages, tokens in order inside each page."""

from __future__ import annotations

import torch
from torch import Tensor


def shuffled_slots(tokens: int, block_size: int, generator: torch.Generator) -> Tensor:
    """Slots of `tokens` tokens that fill shuffled pages one after the other: int64 [tokens]."""
    pages = -(-tokens // block_size)
    order = torch.randperm(pages, generator=generator)
    slots = order[:, None] * block_size + torch.arange(block_size)
    return slots.reshape(-1)[:tokens].contiguous()


def shuffled_block_table(
    lengths: list[int], block_size: int, generator: torch.Generator
) -> tuple[Tensor, int]:
    """A block table over shuffled pages, int32 [sequences, widest], and the number of pages."""
    counts = [-(-length // block_size) for length in lengths]
    order = torch.randperm(sum(counts), generator=generator).to(torch.int32)
    table = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
    start = 0
    for row, count in enumerate(counts):
        table[row, :count] = order[start : start + count]
        start += count
    return table, sum(counts)
