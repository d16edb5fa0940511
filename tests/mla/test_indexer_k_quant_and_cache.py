"""What only indexer_k_quant_and_cache can show; the generic tests are over `cases/`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kvops
from mla.inputs import awkward, distinct_slots, far_apart, poisoned

FORMATS = ("ue8m0", "auto")


def entries(cache: Tensor, head_size: int) -> tuple[Tensor, Tensor]:
    """[slots, head_size] bytes and [slots, head_size / 128] scales of a dense cache."""
    blocks, block_size = cache.shape[:2]
    flat = cache.reshape(blocks, -1)
    keys = flat[:, : block_size * head_size].reshape(-1, head_size)
    scales_bytes = flat[:, block_size * head_size :][:, : block_size * head_size // 32]
    return keys, scales_bytes.contiguous().view(torch.float32).reshape(blocks * block_size, -1)


@given(
    tokens=st.integers(0, 40),
    blocks=st.integers(1, 5),
    block_size=st.integers(1, 17),
    tiles=st.integers(1, 5),
    scale_format=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**32 - 1),
)
def test_block_size_does_not_matter(
    tokens: int, blocks: int, block_size: int, tiles: int, scale_format: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_slots, head_size = blocks * block_size, 128 * tiles
    tokens = min(tokens, num_slots)
    k = awkward(tokens, head_size, dtype=torch.bfloat16, generator=generator)
    slots = distinct_slots(tokens, num_slots, generator)
    found = []
    for shape in ((blocks, block_size), (block_size, blocks), (1, num_slots), (num_slots, 1)):
        cache = poisoned(*shape, head_size + 4 * tiles, dtype=torch.uint8)
        kvops.indexer_k_quant_and_cache(k, cache, slots, 128, scale_format)
        keys, scales = entries(cache, head_size)
        found.append(torch.cat([keys, scales.view(torch.uint8)], dim=1))
    assert all(torch.equal(other, found[0]) for other in found[1:])


@given(tokens=st.integers(1, 40), scale_format=st.sampled_from(FORMATS), seed=st.integers(0, 2**32))
def test_what_is_written_is_read_back(tokens: int, scale_format: str, seed: int) -> None:
    """byte * scale is the key again, within half a unit in the last place of e4m3."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.randn(tokens, 256, generator=generator).bfloat16()
    slots = distinct_slots(tokens, 64, generator)
    cache = poisoned(4, 16, 264, dtype=torch.uint8)
    kvops.indexer_k_quant_and_cache(k, cache, slots, 128, scale_format)
    keys, scales = entries(cache, 256)
    values = keys.view(torch.float8_e4m3fn).double()[slots]
    scales = scales[slots].double().repeat_interleave(128, dim=1)
    # Half of 2^-3 of a normal number, or of the smallest subnormal, 2^-9.
    bound = torch.maximum(k.double().abs() * 2**-4, scales * 2**-10)
    assert ((values * scales - k.double()).abs() <= bound).all()


@pytest.mark.parametrize("scale_format", ["ue8m0", "auto", "", "UE8M0", "ue8m0 "])
def test_scales_by_hand(scale_format: str) -> None:
    """All-zero keys have 1e-4 / 448; only exactly "ue8m0" rounds up to a power of two."""
    k = torch.zeros(6, 128, dtype=torch.bfloat16)
    k[1:, 7] = torch.tensor([448.0, 449.9, -3.5, float("-inf"), math.nan])
    cache = poisoned(1, 8, 132, dtype=torch.uint8)
    kvops.indexer_k_quant_and_cache(k, cache, torch.arange(6), 128, scale_format)
    keys, scales = entries(cache, 128)
    smallest = (torch.tensor(1e-4) / 448).item()
    expected = [smallest, 1.0, 450 / 448, 3.5 / 448, math.inf, smallest]
    if scale_format == "ue8m0":
        expected = [2.0**-22, 1.0, 2.0, 2.0**-7, math.inf, 2.0**-22]
    assert scales[:6, 0].tolist() == torch.tensor(expected).tolist()
    assert keys[:6, 7].tolist() == [
        *([0, 0x7E, 0x76, 0xFE] if scale_format == "ue8m0" else [0, 0x7E, 0x7E, 0xFE]),
        *[0x7F, 0x7F],
    ]


def test_power_of_two_scales_for_every_largest_magnitude() -> None:
    """No bfloat16 / 448 is so near a power of two that rounding up could depend on log2's last bit.

    So the scale is the power of two that is exactly right, for every tile there is.
    """
    magnitudes = torch.arange(0x7F80, dtype=torch.int16).view(torch.bfloat16)
    k = torch.zeros(len(magnitudes), 128, dtype=torch.bfloat16)
    k[:, 5] = magnitudes
    cache = poisoned(len(k), 1, 132, dtype=torch.uint8)
    kvops.indexer_k_quant_and_cache(k, cache, torch.arange(len(k)), 128, "ue8m0")
    scales = entries(cache, 128)[1].flatten().double()
    needed = magnitudes.float().clamp(min=1e-4).double() / 448
    assert (scales >= needed * (1 - 2**-24)).all()
    assert (scales / 2 < needed).all()
    assert (scales.frexp().mantissa == 0.5).all()


@pytest.mark.parametrize("scale_format", FORMATS)
def test_skipped_tokens_write_nothing(scale_format: str) -> None:
    cache = poisoned(4, 16, 132, dtype=torch.uint8)
    bad = torch.tensor([-1, -2, 64, 65, 2**31, 2**40, -(2**63), 2**63 - 1])
    k = torch.randn(600, 128).bfloat16()
    kvops.indexer_k_quant_and_cache(k, cache, bad.repeat(75), 128, scale_format)
    assert (cache == 0xFF).all()


def test_padding_of_blocks_is_left_alone() -> None:
    """Entries wider than needed: the rest of a block, after its scales, keeps its bytes."""
    cache = poisoned(3, 4, 140, dtype=torch.uint8)
    k = torch.randn(12, 128).bfloat16()
    kvops.indexer_k_quant_and_cache(k, cache, torch.randperm(12), 128, "auto")
    flat = cache.view(3, 560)
    assert (flat[:, 528:] == 0xFF).all()
    assert (flat[:, 512:528].contiguous().view(torch.float32) > 0).all()


def test_float8_caches_are_caches_of_bytes() -> None:
    as_uint8, as_float8 = (poisoned(2, 8, 132, dtype=torch.uint8) for _ in range(2))
    k, slots = torch.randn(9, 128).bfloat16(), torch.randperm(16)[:9]
    kvops.indexer_k_quant_and_cache(k, as_uint8, slots, 128, "auto")
    kvops.indexer_k_quant_and_cache(k, as_float8.view(torch.float8_e4m3fn), slots, 128, "auto")
    assert torch.equal(as_uint8, as_float8)


def test_offsets_beyond_31_bits() -> None:
    k = torch.randn(2, 128).bfloat16()
    cache = torch.zeros(2, 4, 132, dtype=torch.uint8)
    far_cache, slots = far_apart(cache), torch.tensor([2, 7])
    kvops.indexer_k_quant_and_cache(far_apart(k), far_cache, slots, 128, "ue8m0")
    kvops.indexer_k_quant_and_cache(k, cache, slots, 128, "ue8m0")
    assert torch.equal(far_cache, cache)
    assert cache.any(dim=-1).any(dim=-1).all()
