"""The cache under test: keys and values in pages, written and read by kvops."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

import kvops

from .model import Attend, DecoderConfig, causal_attention
from .page_pool import PagePool, copy_pages

# paged_attention_v2 splits a sequence into parts of this many tokens and merges their results.
PARTITION_TOKENS = 512
NO_PAGE = -1


@dataclass(frozen=True)
class SwapReport:
    """What one round trip of pages to the second pool and back moved."""

    pages_in_use: int
    pages_moved: int
    bytes_moved: int


class PagedCache:
    """Sequences of any length in pages of `page_tokens` tokens, in no order.

    The pool holds `max_pages` pages for the sequences and half as many spare ones, so that
    pages that come back from the second pool find other places than they left.
    """

    def __init__(
        self,
        config: DecoderConfig,
        max_pages: int,
        page_tokens: int,
        device: torch.device,
        *,
        seed: int = 0,
    ) -> None:
        self.config = config
        self.page_tokens = page_tokens
        self.device = device
        half = ceil(max_pages / 2)
        self.pool = PagePool(config, max_pages + half, page_tokens, device, seed=seed)
        # The second pool is what a serving system swaps to: host memory, pinned for a GPU's DMA.
        host = torch.device("cpu")
        self.second_pool = PagePool(
            config, half, page_tokens, host, seed=seed + 1, pinned=device.type == "cuda"
        )
        self.tables: list[list[int]] = []  # the pages of each sequence, in token order
        self.lengths: list[int] = []
        self._random = random.Random(seed)
        self._no_scale = torch.ones(1, device=device)  # read by fp8 caches only

    def prefill(self, num_tokens: int) -> Attend:
        """Starts a new sequence; the function returned writes its prompt's keys and values."""
        self.tables.append([])
        self.lengths.append(0)
        slots = self._slot_tensor(self._append(len(self.tables) - 1, num_tokens))

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self._write(layer, key, value, slots)
            return causal_attention(layer, query, key, value)

        return attend

    def decode(self) -> Attend:
        """Makes room for one more token of every sequence."""
        new_slots = [self._append(sequence, 1)[0] for sequence in range(len(self.tables))]
        slots = self._slot_tensor(new_slots)
        block_tables = self._block_tables()
        seq_lens = torch.tensor(self.lengths, dtype=torch.int32, device=self.device)
        longest = max(self.lengths)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self._write(layer, key, value, slots)
            return self._read(layer, query, block_tables, seq_lens, longest)

        return attend

    def swap_out_and_in(self) -> SwapReport:
        """Sends half of all pages in use to the second pool and brings them back elsewhere."""
        places = [
            (seq, index) for seq, table in enumerate(self.tables) for index in range(len(table))
        ]
        moved = self._random.sample(places, len(places) // 2)

        old_pages = [self.tables[seq][index] for seq, index in moved]
        away_pages = self.second_pool.allocate(len(moved))
        bytes_moved = copy_pages(self.pool, old_pages, self.second_pool, away_pages)
        self.pool.poison(old_pages)
        self.pool.free(old_pages)

        new_pages = self.pool.allocate(len(moved))
        bytes_moved += copy_pages(self.second_pool, away_pages, self.pool, new_pages)
        self.second_pool.free(away_pages)
        for (seq, index), page in zip(moved, new_pages, strict=True):
            self.tables[seq][index] = page
        return SwapReport(len(places), len(moved), bytes_moved)

    def _append(self, sequence: int, num_tokens: int) -> list[int]:
        """Lengthens a sequence, with new pages as needed; returns the slots of the new tokens."""
        table, start = self.tables[sequence], self.lengths[sequence]
        end = start + num_tokens
        table += self.pool.allocate(ceil(end / self.page_tokens) - len(table))
        self.lengths[sequence] = end
        return [
            table[position // self.page_tokens] * self.page_tokens + position % self.page_tokens
            for position in range(start, end)
        ]

    def _slot_tensor(self, slots: list[int]) -> Tensor:
        return torch.tensor(slots, dtype=torch.int64, device=self.device)

    def _block_tables(self) -> Tensor:
        """Pages of every sequence, int32 [sequences, longest table], short rows filled up."""
        width = max(len(table) for table in self.tables)
        rows = [table + [NO_PAGE] * (width - len(table)) for table in self.tables]
        return torch.tensor(rows, dtype=torch.int32, device=self.device)

    def _write(self, layer: int, key: Tensor, value: Tensor, slots: Tensor) -> None:
        kvops.reshape_and_cache(
            key,
            value,
            self.pool.key_caches[layer],
            self.pool.value_caches[layer],
            slots,
            "auto",
            self._no_scale,
            self._no_scale,
        )

    def _read(
        self, layer: int, query: Tensor, block_tables: Tensor, seq_lens: Tensor, longest: int
    ) -> Tensor:
        """Attention of one query token per sequence over its pages."""
        num_seqs, num_heads, head_size = query.shape
        partitions = ceil(longest / PARTITION_TOKENS)
        out = torch.empty_like(query)
        kvops.paged_attention_v2(
            out,
            query.new_empty(num_seqs, num_heads, partitions),  # exp_sums
            query.new_empty(num_seqs, num_heads, partitions),  # max_logits
            query.new_empty(num_seqs, num_heads, partitions, head_size),  # tmp_out
            query,
            self.pool.key_caches[layer],
            self.pool.value_caches[layer],
            self.config.kv_heads,
            head_size**-0.5,
            block_tables,
            seq_lens,
            self.page_tokens,
            longest,
            None,  # alibi_slopes
            "auto",
            self._no_scale,
            self._no_scale,
        )
        return out
