"""What only concat_and_cache_mla can show; the generic tests are over `cases/`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kvops
from mla.inputs import as_bytes, awkward, distinct_slots, far_apart, poisoned

ONE = torch.ones(1)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)

sizes = {
    "tokens": st.integers(0, 40),
    "blocks": st.integers(1, 6),
    "block_size": st.integers(1, 17),
    "latent": st.integers(0, 70),
    "rope": st.integers(0, 40),
    "dtype": st.sampled_from(DTYPES),
    "seed": st.integers(0, 2**32 - 1),
}


def inputs(tokens: int, latent: int, rope: int, dtype: torch.dtype, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [awkward(tokens, w, dtype=dtype, generator=generator) for w in (latent, rope)]


def some_slots(tokens: int, num_slots: int, seed: int) -> tuple[int, Tensor]:
    """How many tokens there can be, and a distinct slot for each of them."""
    tokens = min(tokens, num_slots)
    return tokens, distinct_slots(tokens, num_slots, torch.Generator().manual_seed(seed))


@given(**sizes)
def test_what_is_written_is_read_back(
    tokens: int,
    blocks: int,
    block_size: int,
    latent: int,
    rope: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    tokens, slots = some_slots(tokens, blocks * block_size, seed)
    kv_c, k_pe = inputs(tokens, latent, rope, dtype, seed)
    cache = poisoned(blocks, block_size, latent + rope, dtype=dtype)
    before = cache.clone()
    kvops.concat_and_cache_mla(kv_c, k_pe, cache, slots, "auto", ONE)
    entries = as_bytes(cache).view(blocks * block_size, -1)
    assert torch.equal(entries[slots], as_bytes(torch.cat([kv_c, k_pe], dim=1)))
    others = torch.ones(blocks * block_size, dtype=torch.bool)
    others[slots] = False
    assert torch.equal(entries[others], as_bytes(before).view(entries.shape)[others])


@given(kind=st.sampled_from(["auto", "fp8", "fp8_e5m2"]), **sizes)
def test_block_size_does_not_matter(
    kind: str,
    tokens: int,
    blocks: int,
    block_size: int,
    latent: int,
    rope: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    num_slots = blocks * block_size
    tokens, slots = some_slots(tokens, num_slots, seed)
    kv_c, k_pe = inputs(tokens, latent, rope, dtype, seed)
    flat = []
    for shape in ((blocks, block_size), (block_size, blocks), (1, num_slots), (num_slots, 1)):
        cache = poisoned(*shape, latent + rope, dtype=dtype if kind == "auto" else torch.uint8)
        kvops.concat_and_cache_mla(kv_c, k_pe, cache, slots, kind, ONE)
        flat.append(as_bytes(cache).view(num_slots, -1))
    assert all(torch.equal(other, flat[0]) for other in flat[1:])


@given(blocks=st.integers(1, 6), block_size=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_permuted_blocks_give_a_permuted_cache(blocks: int, block_size: int, seed: int) -> None:
    tokens, slots = some_slots(20, blocks * block_size, seed)
    kv_c, k_pe = inputs(tokens, 512, 64, torch.bfloat16, seed)
    place_of_block = torch.randperm(blocks, generator=torch.Generator().manual_seed(seed + 1))
    moved_slots = place_of_block[slots // block_size] * block_size + slots % block_size
    cache, moved = (poisoned(blocks, block_size, 656, dtype=torch.uint8) for _ in range(2))
    kvops.concat_and_cache_mla(kv_c, k_pe, cache, slots, "fp8_ds_mla", ONE)
    kvops.concat_and_cache_mla(kv_c, k_pe, moved, moved_slots, "fp8_ds_mla", ONE)
    assert torch.equal(moved[place_of_block], cache)


@pytest.mark.parametrize("kind", ["auto", "fp8", "fp8_e5m2", "fp8_ds_mla", "fp8_ds_mla_pow2"])
def test_skipped_tokens_write_nothing(kind: str) -> None:
    kv_c, k_pe = inputs(600, 512, 64, torch.bfloat16, 0)
    width = 656 if kind.startswith("fp8_ds_mla") else 576
    cache = poisoned(4, 16, width, dtype=torch.bfloat16 if kind == "auto" else torch.uint8)
    before = as_bytes(cache).clone()
    bad = torch.tensor([-1, -2, 64, 65, 2**31, 2**40, -(2**63), 2**63 - 1])
    kvops.concat_and_cache_mla(kv_c, k_pe, cache, bad.repeat(75), kind, ONE)
    assert torch.equal(as_bytes(cache), before)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("fp8", torch.float8_e4m3fn),
        ("fp8_e4m3", torch.float8_e4m3fn),
        ("fp8_e5m2", torch.float8_e5m2),
        ("fp8_ds_mla", torch.float8_e4m3fn),
        ("fp8_ds_mla", torch.float8_e5m2),
        ("fp8_ds_mla_pow2", torch.float8_e4m3fn),
    ],
)
def test_float8_caches_are_caches_of_bytes(kind: str, dtype: torch.dtype) -> None:
    kv_c, k_pe = inputs(9, 512, 64, torch.bfloat16, 0)
    width = 656 if kind.startswith("fp8_ds_mla") else 576
    as_uint8, as_float8 = (poisoned(2, 8, width, dtype=torch.uint8) for _ in range(2))
    slots = torch.randperm(16)[:9]
    kvops.concat_and_cache_mla(kv_c, k_pe, as_uint8, slots, kind, ONE)
    kvops.concat_and_cache_mla(kv_c, k_pe, as_float8.view(dtype), slots, kind, ONE)
    assert torch.equal(as_uint8, as_float8)


def test_scale_is_not_looked_at_unless_it_is_used() -> None:
    kv_c, k_pe = inputs(3, 512, 64, torch.bfloat16, 0)
    for kind, cache in (
        ("auto", poisoned(1, 4, 576, dtype=torch.bfloat16)),
        ("fp8_ds_mla", poisoned(1, 4, 656, dtype=torch.uint8)),
        ("fp8_ds_mla_pow2", poisoned(1, 4, 656, dtype=torch.uint8)),
    ):
        expected = cache.clone()
        kvops.concat_and_cache_mla(kv_c, k_pe, expected, torch.arange(3), kind, ONE)
        for scale in (torch.zeros(7), torch.empty(0), torch.ones(1, dtype=torch.int64)):
            actual = cache.clone()
            kvops.concat_and_cache_mla(kv_c, k_pe, actual, torch.arange(3), kind, scale)
            assert torch.equal(as_bytes(actual), as_bytes(expected))


def test_hand_computed_ds_mla_entry() -> None:
    kv_c = torch.zeros(1, 512, dtype=torch.bfloat16)
    kv_c[0, :3] = torch.tensor([448.0, -224.0, float("nan")])
    kv_c[0, 128] = 1.75
    kv_c[0, 256:258] = torch.tensor([float("-inf"), 5.0])
    k_pe = torch.arange(64).bfloat16().unsqueeze(0)
    cache = poisoned(1, 1, 656, dtype=torch.uint8)
    kvops.concat_and_cache_mla(kv_c, k_pe, cache, torch.tensor([0]), "fp8_ds_mla", ONE)
    entry = cache.flatten()
    # 448 and 224 at scale 1; the largest of its tile; -inf / inf is NaN, 5 / inf is 0.
    assert entry[:4].tolist() == [0x7E, 0xF6, 0x7F, 0x00]
    assert entry[128:130].tolist() == [0x7E, 0x00]
    assert entry[256:258].tolist() == [0x7F, 0x00]
    scales = entry[512:528].view(torch.float32).tolist()
    assert scales == [1.0, 1.75 / 448, float("inf"), torch.finfo(torch.float32).tiny]
    assert torch.equal(entry[528:].view(torch.bfloat16), k_pe[0])


def test_hand_computed_power_of_two_scales() -> None:
    kv_c = torch.zeros(1, 512, dtype=torch.bfloat16)
    kv_c[0, :2] = torch.tensor([336.0, -224.0])
    kv_c[0, 128] = 450.0
    kv_c[0, 256] = float("-inf")
    cache = poisoned(1, 1, 656, dtype=torch.uint8)
    nothing = torch.empty(1, 0, dtype=torch.bfloat16)
    kvops.concat_and_cache_mla(kv_c, nothing, cache, torch.tensor([0]), "fp8_ds_mla_pow2", ONE)
    entry = cache.flatten()
    # 336 at scale 1: 1.3125 * 2^8 is halfway between two bytes, and goes to the even one.
    assert entry[:2].tolist() == [0x7A, 0xF6]
    assert entry[512:528].view(torch.float32).tolist() == [1.0, 2.0, float("inf"), 2.0**-13]
    assert not entry[528:].any()


@given(seed=st.integers(0, 2**32 - 1))
def test_both_ds_mla_variants_are_read_alike(seed: int) -> None:
    """The entry says its scales, so what is read is near to what was written by either."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(5, 576, generator=generator) * 2.0 ** torch.randint(
        -6, 20, (5, 1), generator=generator
    )
    kv_c, k_pe = rows.bfloat16().split([512, 64], dim=1)
    table, starts = torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    for kind in ("fp8_ds_mla", "fp8_ds_mla_pow2"):
        cache = poisoned(1, 5, 656, dtype=torch.uint8)
        kvops.concat_and_cache_mla(kv_c, k_pe, cache, torch.arange(5), kind, ONE)
        read = torch.full([5, 576], torch.nan, dtype=torch.bfloat16)
        lens = torch.tensor([5], dtype=torch.int32)
        kvops.cp_gather_and_upconvert_fp8_kv_cache(cache, read, table, lens, starts, 1)
        tiles = kv_c.float().view(5, 4, 128)
        error = (read[:, :512].float().view(5, 4, 128) - tiles).abs()
        # Half a unit in the last place of three bits, and of a subnormal byte; bfloat16 besides.
        scale = tiles.abs().amax(-1, keepdim=True) / 448 * 2
        assert (error <= tiles.abs() * (2**-4 + 2**-8) + scale * 2**-10).all()
        assert torch.equal(as_bytes(read[:, 512:]), as_bytes(k_pe.contiguous()))


def test_skipped_scale_is_one_and_not_looked_at() -> None:
    kv_c, k_pe = inputs(9, 96, 32, torch.float16, 0)
    caches = [poisoned(2, 8, 128, dtype=torch.uint8) for _ in range(2)]
    slots = torch.randperm(16)[:9]
    kvops.concat_and_cache_mla(kv_c, k_pe, caches[0], slots, "fp8", ONE)
    no_scale = torch.empty(0, dtype=torch.int32)
    kvops.concat_and_cache_mla(kv_c, k_pe, caches[1], slots, "fp8", no_scale, skip_scale=True)
    assert torch.equal(*caches)


@pytest.mark.parametrize("kind", ["auto", "fp8_ds_mla"])
def test_offsets_beyond_31_bits(kind: str) -> None:
    near = torch.randn(2, 576).bfloat16()
    cache = torch.zeros(2, 4, 576, dtype=torch.bfloat16)
    if kind == "fp8_ds_mla":
        cache = torch.zeros(2, 4, 656, dtype=torch.uint8)
    far_cache = far_apart(cache)
    for rows, out in ((near, cache), (far_apart(near), far_cache)):
        kv_c, k_pe = rows.split([512, 64], dim=1)
        kvops.concat_and_cache_mla(kv_c, k_pe, out, torch.tensor([2, 7]), kind, ONE)
    assert torch.equal(far_cache, cache)
    assert cache[[0, 1], [2, 3]].any(dim=1).all()


def test_many_wide_entries() -> None:
    """More tokens and more elements per token than any launch of vLLM's has threads."""
    kv_c, k_pe = inputs(1500, 4000, 1003, torch.bfloat16, 0)
    cache = poisoned(100, 16, 5003, dtype=torch.bfloat16)
    slots = torch.randperm(1600)[:1500]
    kvops.concat_and_cache_mla(kv_c, k_pe, cache, slots, "auto", ONE)
    written = cache.view(1600, -1)[slots]
    assert torch.equal(as_bytes(written), as_bytes(torch.cat([kv_c, k_pe], dim=1)))
