"""What only reshape_and_cache_flash can show: scales per head, value sizes, any strides."""

from __future__ import annotations

import pytest
import torch

import kvops
from cache.inputs import awkward, poisoned
from kvops import reference
from tensor_bytes import byte_view


@pytest.mark.parametrize("kind", ["fp8", "fp8_e5m2"])
def test_a_scale_per_head_is_a_call_per_head(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = awkward([19, 5, 40], torch.bfloat16, generator)
    k_scale, v_scale = torch.rand([2, 5], generator=generator) + 0.1
    slots = torch.arange(7, 26)
    together = poisoned([2, 2, 16, 5, 40], torch.uint8)
    alone = together.clone()
    kvops.reshape_and_cache_flash(rows, rows, *together, slots, kind, k_scale, v_scale)
    for head in range(5):
        one = slice(head, head + 1)
        kvops.reshape_and_cache_flash(
            *(rows[:, one], rows[:, one], *alone[:, :, :, one], slots, kind),
            *(k_scale[one], v_scale[one]),
        )
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


def test_every_layout_holds_the_same_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    key, value = awkward([2, 40, 3, 64], torch.float16, generator)
    slots = torch.randperm(64, generator=generator)[:40]
    one = torch.tensor(1.0)
    nhd = poisoned([2, 4, 16, 3, 64], torch.float16)
    kvops.reshape_and_cache_flash(key, value, *nhd, slots, "auto", one, one)
    # Each cache has strides of its own: here keys are NHD and values HND.
    mixed = nhd[0].clone(), poisoned([4, 3, 16, 64], torch.float16).transpose(1, 2)
    kvops.reshape_and_cache_flash(key, value, *mixed, slots, "auto", one, one)
    # Pages of keys and values side by side, and of one token after the other.
    pages = poisoned([4, 2, 16, 3, 64], torch.float16)
    kvops.reshape_and_cache_flash(key, value, pages[:, 0], pages[:, 1], slots, "auto", one, one)
    woven = poisoned([4, 16, 3, 2, 64], torch.float16).unbind(3)
    kvops.reshape_and_cache_flash(key, value, *woven, slots, "auto", one, one)
    for caches in (mixed, pages.unbind(1), woven):
        for actual, expected in zip(caches, nhd, strict=True):
            assert torch.equal(byte_view(actual), byte_view(expected))


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_values_with_a_head_size_of_their_own(layout: str) -> None:
    generator = torch.Generator().manual_seed(0)
    key = awkward([50, 4, 192], torch.bfloat16, generator)
    value = awkward([50, 4, 128], torch.bfloat16, generator)
    slots = torch.randperm(64, generator=generator)[:50]
    scales = torch.rand([2, 4], generator=generator) + 0.1

    def caches() -> list[torch.Tensor]:
        middle = [16, 4] if layout == "NHD" else [4, 16]
        made = [poisoned([4, *middle, size], torch.uint8) for size in (192, 128)]
        return made if layout == "NHD" else [cache.transpose(1, 2) for cache in made]

    actual, expected = caches(), caches()
    kvops.reshape_and_cache_flash(key, value, *actual, slots, "fp8", *scales)
    reference.reshape_and_cache_flash(key, value, *expected, slots, "fp8", *scales)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])
