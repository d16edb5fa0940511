"""End to end: pages leave for the host and come back while sequences are being decoded.

A paged decoder goes on with half of its sequences while those of the other half are out; all
tokens must be those of a dense cache that never swaps.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import kvops
from decoder.dense_cache import DenseCache
from decoder.generation import compare, generate
from decoder.model import Decoder, DecoderConfig
from decoder.paged_cache import PagedCache
from devices import CUDA

PROMPTS, NEW_TOKENS, PAGE_TOKENS = (5, 33, 17, 40), 48, 8


class SwappingCache(PagedCache):
    """Before each step, spare copies of all pages go out on a stream of their own, and come back to
    other places while the step runs: the next step reads those.
    """

    def __init__(self, config: DecoderConfig, max_pages: int, device: torch.device) -> None:
        super().__init__(config, 3 * max_pages, PAGE_TOKENS, device)
        self.caches = [*self.pool.key_caches, *self.pool.value_caches]
        self.pinned = kvops.PinnedPool(max_pages, 2 * config.layers * self.pool.piece_bytes)
        self.stream = torch.cuda.Stream()
        self.paths: set[str] = set()
        self.moved_pages = 0

    def swap_beside_decode(self, work: Tensor) -> None:
        """Full pages only: nobody writes to them any more, so decoding may go on reading them."""
        full = [
            (sequence, index)
            for sequence, (table, length) in enumerate(zip(self.tables, self.lengths, strict=True))
            for index in range(min(len(table), length // PAGE_TOKENS))
        ]
        old = [self.tables[sequence][index] for sequence, index in full]
        if not old:
            return
        new = self.pool.allocate(len(old))
        self.stream.wait_stream(torch.cuda.current_stream())
        for _ in range(4):
            work.matmul(work)  # keeps the main stream busy while the swap goes on
        with torch.cuda.stream(self.stream):
            pages = kvops.swap.offload(self.caches, old, self.pinned)
            kvops.swap.reload(self.caches, new, self.pinned, pages)
            done = self.stream.record_event()
        self.paths.add(kvops.swap.last_path() or "")
        torch.cuda.current_stream().wait_event(done)
        # What was left behind must not be read again.
        self.pool.poison(old)
        for (sequence, index), page in zip(full, new, strict=True):
            self.tables[sequence][index] = page
        done.synchronize()
        self.pinned.free(pages)
        self.pool.free(old)
        self.moved_pages += len(old)


@pytest.mark.parametrize("path", ["auto", "dma", "kernel", "batch", "single"])
@pytest.mark.parametrize("device", CUDA)
def test_all_tokens_are_those_without_swaps(path: str, device: str) -> None:
    torch.manual_seed(0)
    config = DecoderConfig(layers=3, heads=4, kv_heads=2, head_size=32, context_tokens=128)
    gpu = torch.device(device)
    model = Decoder(config).to(gpu)
    prompts = [torch.randint(0, 256, (length,), device=gpu) for length in PROMPTS]
    dense = DenseCache(config, len(prompts), gpu)
    reference = generate(model, dense, prompts, NEW_TOKENS, lambda step: None)
    pages = sum(-(-(length + NEW_TOKENS) // PAGE_TOKENS) for length in PROMPTS)
    cache = SwappingCache(config, pages, gpu)
    work = torch.randn(1024, 1024, device=gpu)
    with kvops.swap.use_path(path):
        run = generate(
            model, cache, prompts, NEW_TOKENS, lambda step: cache.swap_beside_decode(work)
        )
    assert compare(run, reference).agrees, compare(run, reference)
    assert cache.moved_pages > 500
    if path in ("kernel", "batch", "single"):
        assert cache.paths == {path}
