"""The cache writers by layout: how to make their caches, and how to read tokens back with torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import kvops
from cache.inputs import cache_dtype, poisoned

Caches = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Writer:
    """A writer with one layout of its caches.

    `make(num_blocks, heads, head_size, block_size, dtype)` gives poisoned caches, and
    `read(cache, block, offset)` the tokens [n, heads, head_size] at n places of one of them.
    """

    name: str
    operator: Callable[..., None]
    make: Callable[[int, int, int, int, torch.dtype], Caches]
    read: Callable[[Tensor, Tensor, Tensor], Tensor]

    def write(
        self,
        rows: Caches,
        caches: Caches,
        slots: Tensor,
        kind: str = "auto",
        scales: tuple[float, float] = (0.37, 2.6),
    ) -> None:
        """Write keys and values `rows` of all slots."""
        self.operator(*rows, *caches, slots, kind, *(torch.tensor(scale) for scale in scales))

    def tokens(self, caches: Caches, slots: Tensor) -> Caches:
        """The keys and values at slots that are all in range."""
        block_size = self.block_size(caches)
        places = slots // block_size, slots % block_size
        return self.read(caches[0], *places), self.read(caches[1], *places)

    def block_size(self, caches: Caches) -> int:
        return caches[1].size(3 if self.operator is kvops.reshape_and_cache else 1)

    def room(self, rows: Caches, num_blocks: int, block_size: int, kind: str = "auto") -> Caches:
        """Poisoned caches for such rows."""
        _, heads, head_size = rows[0].shape
        dtype = cache_dtype(kind, rows[0].dtype)
        return self.make(num_blocks, heads, head_size, block_size, dtype)


def _paged(num_blocks: int, heads: int, head_size: int, block_size: int, dtype: torch.dtype):
    x = min(16 // dtype.itemsize, head_size)
    while head_size % x:
        x -= 1
    key_cache = poisoned([num_blocks, heads, head_size // x, block_size, x], dtype)
    return key_cache, poisoned([num_blocks, heads, head_size, block_size], dtype)


def _read_paged(cache: Tensor, block: Tensor, offset: Tensor) -> Tensor:
    return cache[block, :, :, offset].flatten(2)


def _nhd(num_blocks: int, heads: int, head_size: int, block_size: int, dtype: torch.dtype):
    shape = [num_blocks, block_size, heads, head_size]
    return poisoned(shape, dtype), poisoned(shape, dtype)


def _hnd(num_blocks: int, heads: int, head_size: int, block_size: int, dtype: torch.dtype):
    shape = [num_blocks, heads, block_size, head_size]
    return poisoned(shape, dtype).transpose(1, 2), poisoned(shape, dtype).transpose(1, 2)


def _read_flash(cache: Tensor, block: Tensor, offset: Tensor) -> Tensor:
    return cache[block, offset]


WRITERS = (
    Writer("paged", kvops.reshape_and_cache, _paged, _read_paged),
    Writer("flash-NHD", kvops.reshape_and_cache_flash, _nhd, _read_flash),
    Writer("flash-HND", kvops.reshape_and_cache_flash, _hnd, _read_flash),
)
