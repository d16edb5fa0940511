"""A pool of pages for keys and values, with its free list, and the copy between two pools."""

from __future__ import annotations

import random
from collections import deque

import torch
from torch import Tensor

import kvops

from .model import DecoderConfig

# A key cache keeps this many bytes of a key together, so that a kernel can load them at once.
KEY_CHUNK_BYTES = 16


class PagePool:
    """Pages on one device; each holds the K and V of `page_tokens` tokens in every layer.

    Pages are handed out in a shuffled order and come back at the end of the queue: a table of
    pages is never sorted, and a page just freed is the last to be used again.
    """

    def __init__(
        self,
        config: DecoderConfig,
        num_pages: int,
        page_tokens: int,
        device: torch.device,
        *,
        seed: int,
        pinned: bool = False,
    ) -> None:
        self.num_pages = num_pages
        page_elems = config.kv_heads * config.head_size * page_tokens
        # NaN everywhere: whatever is read before it was written shows in the logits.
        self.storage = torch.full(
            (config.layers, 2, num_pages, page_elems),
            float("nan"),
            device=device,
            pin_memory=pinned,
        )
        chunk_elems = KEY_CHUNK_BYTES // self.storage.element_size()
        chunks = config.head_size // chunk_elems
        # key_caches: [layer][page, kv head, chunk of the head, token, element of the chunk]
        self.key_caches = self.storage[:, 0].unflatten(
            -1, (config.kv_heads, chunks, page_tokens, chunk_elems)
        )
        # value_caches: [layer][page, kv head, element of the head, token]
        self.value_caches = self.storage[:, 1].unflatten(
            -1, (config.kv_heads, config.head_size, page_tokens)
        )
        order = list(range(num_pages))
        random.Random(seed).shuffle(order)
        self._free = deque(order)

    @property
    def pages_in_use(self) -> int:
        """Number of pages handed out and not given back."""
        return self.num_pages - len(self._free)

    @property
    def piece_bytes(self) -> int:
        """Size of the contiguous piece that one page has in one layer's K (or V)."""
        return self.storage.size(-1) * self.storage.element_size()

    def allocate(self, count: int) -> list[int]:
        """Takes `count` pages off the free list."""
        if count > len(self._free):
            raise MemoryError(f"{count} pages wanted, {len(self._free)} of {self.num_pages} free")
        return [self._free.popleft() for _ in range(count)]

    def free(self, pages: list[int]) -> None:
        """Puts pages back at the end of the free list."""
        self._free.extend(pages)

    def poison(self, pages: list[int]) -> None:
        """Overwrites pages with NaN in every layer."""
        self.storage[:, :, pages] = float("nan")

    def addresses(self, pages: list[int]) -> Tensor:
        """Addresses of the pages' pieces, int64 [layers * 2 * len(pages)] on the CPU."""
        rows = torch.arange(self.storage.size(0) * 2)[:, None] * self.num_pages
        return ((rows + torch.tensor(pages)) * self.piece_bytes).flatten() + self.storage.data_ptr()


def copy_pages(
    source: PagePool, source_pages: list[int], target: PagePool, target_pages: list[int]
) -> int:
    """Copies pages, in any direction between host and GPU, in one call. Returns the bytes."""
    source_addresses = source.addresses(source_pages)
    sizes = torch.full_like(source_addresses, source.piece_bytes)
    kvops.swap_blocks_batch(source_addresses, target.addresses(target_pages), sizes)
    return int(sizes.sum())
