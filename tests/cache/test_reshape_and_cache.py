"""What only reshape_and_cache can show: any x, more than 512 units, remainders, shared pages."""

from __future__ import annotations

import pytest
import torch

import kvops
from cache.inputs import awkward, poisoned
from kvops import reference
from tensor_bytes import byte_view

ONE = torch.tensor(1.0)


@pytest.mark.parametrize("kind", ["auto", "fp8"])
@pytest.mark.parametrize("x", [1, 2, 3, 4, 6, 8, 12, 16, 24, 48])
def test_any_x_holds_the_same_heads(x: int, kind: str) -> None:
    rows = awkward([21, 2, 48], torch.bfloat16, torch.Generator().manual_seed(x))
    slots = torch.arange(3, 24)
    dtype = torch.uint8 if kind == "fp8" else torch.bfloat16
    key_cache = poisoned([2, 2, 48 // x, 16, x], dtype)
    value_cache = poisoned([2, 2, 48, 16], dtype)
    kvops.reshape_and_cache(rows, rows, key_cache, value_cache, slots, kind, ONE, ONE)
    heads = key_cache.transpose(2, 3).flatten(3).transpose(2, 3)
    assert torch.equal(byte_view(heads), byte_view(value_cache))


@pytest.mark.parametrize(
    ("dtype", "kind", "heads", "head_size"),
    [
        (torch.bfloat16, "auto", 17, 256),  # 544 pairs of head and x-chunk
        (torch.float32, "auto", 40, 128),  # 1280
        (torch.float16, "fp8", 128, 128),  # 1024
    ],
)
def test_every_unit_is_written(dtype: torch.dtype, kind: str, heads: int, head_size: int) -> None:
    rows = torch.rand([3, heads, head_size]).to(dtype) + 1
    stored = torch.uint8 if kind == "fp8" else dtype
    x = 16 // stored.itemsize
    key_cache = torch.zeros([1, heads, head_size // x, 8, x], dtype=stored)
    value_cache = torch.zeros([1, heads, head_size, 8], dtype=stored)
    slots = torch.tensor([0, 5, 7])
    kvops.reshape_and_cache(rows, rows, key_cache, value_cache, slots, kind, ONE, ONE)
    assert (key_cache[0, :, :, slots] != 0).all()
    assert (value_cache[0, :, :, slots] != 0).all()


def test_the_remainder_of_a_head_is_dropped_where_both_caches_say_so() -> None:
    rows = awkward([20, 3, 61], torch.bfloat16, torch.Generator().manual_seed(0))
    actual = poisoned([2, 3, 7, 16, 8], torch.bfloat16), poisoned([2, 3, 56, 16], torch.bfloat16)
    expected = actual[0].clone(), actual[1].clone()
    slots = torch.arange(5, 25)
    kvops.reshape_and_cache(rows, rows, *actual, slots, "auto", ONE, ONE)
    whole = rows[..., :56].contiguous()
    reference.reshape_and_cache(whole, whole, *expected, slots, "auto", ONE, ONE)
    assert torch.equal(byte_view(actual[0]), byte_view(expected[0]))
    assert torch.equal(byte_view(actual[1]), byte_view(expected[1]))


def test_keys_and_values_of_all_layers_in_the_same_pages() -> None:
    generator = torch.Generator().manual_seed(0)
    layers, blocks, size = 3, 4, 2 * 64 * 16
    pages = poisoned([blocks, layers, 2, size], torch.float16)
    expected = pages.clone()
    for layer in range(layers):
        key = awkward([33, 2, 64], torch.float16, generator)
        value = awkward([33, 2, 64], torch.float16, generator)
        slots = torch.randperm(blocks * 16, generator=generator)[:33]
        for operator, memory in (
            (kvops.reshape_and_cache, pages),
            (reference.reshape_and_cache, expected),
        ):
            key_cache = memory[:, layer, 0].unflatten(1, [2, 8, 16, 8])
            value_cache = memory[:, layer, 1].unflatten(1, [2, 64, 16])
            operator(key, value, key_cache, value_cache, slots, "auto", ONE, ONE)
    assert torch.equal(byte_view(pages), byte_view(expected))
