"""MLA writers choose kernels by the number of tokens: the bytes are the CPU's.

As many tokens as a choice takes at most, and one more, some of them padding or out of range; rows
that end within a thread block, widths that leave no wide unit, entries that lie apart.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import kvops
from devices import CUDA
from gpu.writer_calls import BLOCK_SIZE, single_pages, single_slots
from mla.inputs import as_bytes, awkward, poisoned

TOKENS = [1, 257, 2048, 2049, 5003]
BF16 = torch.bfloat16

Write = Callable[[list[Tensor], Tensor, Tensor], None]  # of rows, cache, slots


def writes_the_bytes_of_the_cpu(
    device: str, write: Write, widths: list[int], entry_bytes: int, apart: bool
) -> bool:
    generator = torch.Generator().manual_seed(entry_bytes)
    some = [awkward(max(TOKENS), width, dtype=BF16, generator=generator) for width in widths]
    for tokens in TOKENS:
        slots = single_slots(tokens, generator)
        pages = poisoned(single_pages(tokens), 2 * BLOCK_SIZE, entry_bytes, dtype=torch.uint8)
        results = []
        for place in ("cpu", device):
            there = pages.to(place, copy=True)
            room = there[:, ::2] if apart else there[:, :BLOCK_SIZE].contiguous()
            write([rows[:tokens].to(place) for rows in some], room, slots.to(place))
            results.append(as_bytes((there if apart else room).cpu()))
        if not torch.equal(*results):
            return False
    return True


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("widths", [(512, 64), (16, 16), (40, 8), (7, 3), (48, 0)], ids=str)
@pytest.mark.parametrize("kind", ["auto", "fp8"])
def test_concat_and_cache_mla(kind: str, widths: tuple[int, int], apart: bool, device: str) -> None:
    def write(rows: list[Tensor], cache: Tensor, slots: Tensor) -> None:
        scale = torch.tensor([0.37], device=slots.device)
        cache = cache.view(BF16) if kind == "auto" else cache
        kvops.concat_and_cache_mla(*rows, cache, slots, kind, scale)

    size = sum(widths) * (2 if kind == "auto" else 1)
    assert writes_the_bytes_of_the_cpu(device, write, [*widths], size, apart)


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", ["fp8_ds_mla", "fp8_ds_mla_pow2"])
def test_fp8_ds_mla(kind: str, apart: bool, device: str) -> None:
    def write(rows: list[Tensor], cache: Tensor, slots: Tensor) -> None:
        kvops.concat_and_cache_mla(*rows, cache, slots, kind, torch.ones(1, device=slots.device))

    assert writes_the_bytes_of_the_cpu(device, write, [512, 64], 656, apart)


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("scales", ["", "ue8m0"])
@pytest.mark.parametrize("tiles", [1, 3])
def test_indexer_k_quant_and_cache(tiles: int, scales: str, device: str) -> None:
    def write(rows: list[Tensor], cache: Tensor, slots: Tensor) -> None:
        kvops.indexer_k_quant_and_cache(*rows, cache, slots, 128, scales)

    assert writes_the_bytes_of_the_cpu(device, write, [tiles * 128], tiles * 132, apart=False)
