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


@pytest.mark.parametrize("kind", ["auto", "fp8"])
@pytest.mark.parametrize("block_size", [16, 48, 80])
def test_interleaved_values_are_pages_of_x_tokens(block_size: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(block_size)
    heads, head_size, x = 3, 40, 8
    rows = awkward([50, heads, head_size], torch.bfloat16, generator)
    dtype = torch.uint8 if kind == "fp8" else torch.bfloat16
    blocks = 2 + 50 // block_size
    slots = torch.randperm(blocks * block_size, generator=generator)[:50]
    slots[:30] = torch.arange(3, 33)
    slots = slots.unique()
    rows = rows[: len(slots)]
    caches = [
        (
            poisoned([pages, heads, head_size // x, tokens, x], dtype),
            poisoned([pages, heads, head_size, tokens], dtype),
        )
        for pages, tokens in ((blocks, block_size), (blocks * block_size // x, x))
    ]
    kvops.reshape_and_cache(rows, rows, *caches[0], slots, kind, ONE, ONE, interleaved_v=True)
    kvops.reshape_and_cache(rows, rows, *caches[1], slots, kind, ONE, ONE)
    # Of a page, a head comes first and groups of x tokens second; of small pages it is the reverse.
    groups = caches[1][1].view(blocks, block_size // x, heads, head_size * x).transpose(1, 2)
    assert torch.equal(byte_view(groups.reshape(caches[0][1].shape)), byte_view(caches[0][1]))
    plain = [cache.clone() for cache in caches[0]]
    kvops.reshape_and_cache(rows, rows, *plain, slots, kind, ONE, ONE)
    assert torch.equal(byte_view(plain[0]), byte_view(caches[0][0]))


def test_large_calls_with_interleaved_values_write_the_bytes_of_small_ones() -> None:
    """Large calls write whole lines around the processor's cache."""
    rows = awkward([97, 4, 128], torch.bfloat16, torch.Generator().manual_seed(0))
    rows = rows.repeat(50, 1, 1)
    slots = torch.arange(len(rows)) + 3
    blocks = len(rows) // 64 + 2
    for x in (8, 32, 64):
        large, small = (
            (
                poisoned([blocks, 4, 128 // x, 64, x], torch.bfloat16),
                poisoned([blocks, 4, 128, 64], torch.bfloat16),
            )
            for _ in range(2)
        )
        kvops.reshape_and_cache(rows, rows, *large, slots, "auto", ONE, ONE, True)
        for part in torch.arange(len(rows)).split(509):
            kvops.reshape_and_cache(
                *(rows[part], rows[part], *small, slots[part], "auto", ONE, ONE, True)
            )
        for left, right in zip(large, small, strict=True):
            assert torch.equal(byte_view(left), byte_view(right))
