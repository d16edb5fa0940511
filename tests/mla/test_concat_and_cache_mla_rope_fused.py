"""What only concat_and_cache_mla_rope_fused can show; the generic tests are over `cases/`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kvops
from mla.inputs import as_bytes, awkward, distinct_slots, far_apart, poisoned

ONE = torch.ones(1)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
POSITIONS = 17


def rope_table(rot: int, dtype: torch.dtype) -> Tensor:
    """[POSITIONS, rot]: cosines, then sines, of position x frequency."""
    frequencies = 10000.0 ** (-torch.arange(0, rot, 2, dtype=torch.float64) / max(rot, 1))
    angles = torch.arange(POSITIONS, dtype=torch.float64).unsqueeze(1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)


@given(
    tokens=st.integers(0, 20),
    heads=st.integers(0, 5),
    latent=st.integers(0, 40),
    rot=st.integers(0, 50).map(lambda pairs: 2 * pairs),
    kind=st.sampled_from(["auto", "fp8", "fp8_e5m2"]),
    is_neox=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_rotation_and_then_concat_and_cache_mla(
    tokens: int,
    heads: int,
    latent: int,
    rot: int,
    kind: str,
    is_neox: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    """The key is rotated like any head of the query, and the entry has the rotated key."""
    generator = torch.Generator().manual_seed(seed)
    k_pe = awkward(tokens, rot, dtype=dtype, generator=generator)
    q_pe = k_pe.unsqueeze(1).repeat(1, heads, 1)
    kv_c = awkward(tokens, latent, dtype=dtype, generator=generator)
    positions = torch.randint(POSITIONS, [tokens], generator=generator)
    slots = distinct_slots(tokens, 24, generator)
    cache = poisoned(3, 8, latent + rot, dtype=dtype if kind == "auto" else torch.uint8)
    expected = cache.clone()
    table, scale = rope_table(rot, dtype), torch.tensor(0.3)
    kvops.concat_and_cache_mla_rope_fused(
        positions, q_pe, k_pe, kv_c, table, is_neox, slots, cache, kind, scale
    )
    assert torch.equal(as_bytes(q_pe), as_bytes(k_pe.unsqueeze(1).expand_as(q_pe)))
    kvops.concat_and_cache_mla(kv_c, k_pe, expected, slots, kind, scale)
    assert torch.equal(as_bytes(cache), as_bytes(expected))


@pytest.mark.parametrize("is_neox", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rotates_pairs_as_complex_numbers(dtype: torch.dtype, is_neox: bool) -> None:
    q_pe = torch.randn(POSITIONS, 4, 64).to(dtype)
    k_pe, kv_c = torch.randn(POSITIONS, 64).to(dtype), torch.randn(POSITIONS, 8).to(dtype)
    x, y = q_pe.double().chunk(2, -1) if is_neox else (q_pe[..., ::2], q_pe[..., 1::2])
    cos, sin = rope_table(64, torch.float64).unsqueeze(1).chunk(2, -1)
    product = torch.complex(x.double(), y.double()) * torch.complex(cos, sin)
    parts = [product.real, product.imag]
    expected = torch.cat(parts, -1) if is_neox else torch.stack(parts, -1).flatten(-2)
    kvops.concat_and_cache_mla_rope_fused(
        torch.arange(POSITIONS),
        q_pe,
        k_pe,
        kv_c,
        rope_table(64, dtype),
        is_neox,
        torch.arange(POSITIONS),
        poisoned(2, 16, 72, dtype=dtype),
        "auto",
        ONE,
    )
    # Four roundings of numbers up to 5: of cosine or sine, two products and their sum.
    bound = 4 * 5 * torch.finfo(dtype).eps
    assert (q_pe.double() - expected).abs().max() <= bound


@pytest.mark.parametrize("is_neox", [True, False])
def test_quarter_turn(is_neox: bool) -> None:
    q_pe = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    k_pe, kv_c = torch.tensor([[5.0, 6.0, 7.0, 8.0]]), torch.tensor([[9.0]])
    table = torch.tensor([[math.nan] * 4, [0.0, 0.0, 1.0, 1.0]])
    cache = torch.zeros(1, 2, 5)
    one = torch.tensor([1])
    kvops.concat_and_cache_mla_rope_fused(
        one, q_pe, k_pe, kv_c, table, is_neox, one, cache, "auto", ONE
    )
    assert q_pe.flatten().tolist() == ([-3, -4, 1, 2] if is_neox else [-2, 1, -4, 3])
    key = [-7, -8, 5, 6] if is_neox else [-6, 5, -8, 7]
    assert k_pe.flatten().tolist() == key
    assert cache.tolist() == [[[0] * 5, [9, *key]]]


BAD_POSITIONS = (-1, -(2**63), POSITIONS, 2**31, 2**63 - 1)
BAD_SLOTS = (-1, -2, 24, 2**31, 2**63 - 1)


@pytest.mark.parametrize(
    ("position", "slot"),
    [*((p, 3) for p in BAD_POSITIONS), *((2, s) for s in BAD_SLOTS), (-1, -1)],
)
def test_a_bad_token_is_left_alone_altogether(position: int, slot: int) -> None:
    def run(tokens: list[int]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        tensors = [
            awkward(3, *shape, dtype=torch.bfloat16, generator=generator)
            for shape in ((2, 64), (64,), (32,))
        ]
        cache = poisoned(3, 8, 96, dtype=torch.bfloat16)
        q_pe, k_pe, kv_c = (t[tokens] for t in tensors)
        positions, slots = torch.tensor([1, position, 5]), torch.tensor([0, slot, 9])
        kvops.concat_and_cache_mla_rope_fused(
            positions[tokens],
            q_pe,
            k_pe,
            kv_c,
            rope_table(64, torch.bfloat16),
            True,
            slots[tokens],
            cache,
            "auto",
            ONE,
        )
        # What the token in the middle had, where it was left out of the call.
        for out, tensor in ((q_pe, tensors[0]), (k_pe, tensors[1])):
            tensor[tokens] = out
        return [tensors[0], tensors[1], cache]

    with_bad_token, without = run([0, 1, 2]), run([0, 2])
    for left, right in zip(with_bad_token, without, strict=True):
        assert torch.equal(as_bytes(left), as_bytes(right))


def test_offsets_beyond_31_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    near = [torch.randn(2, *shape, generator=generator).half() for shape in ((3, 64), (64,), (8,))]
    near += [rope_table(64, torch.float16)[:2].contiguous(), poisoned(2, 2, 72, dtype=torch.half)]
    far = [far_apart(tensor) for tensor in near]
    positions, slots = torch.tensor([0, 1]), torch.tensor([1, 2])
    for q_pe, k_pe, kv_c, table, cache in (near, far):
        kvops.concat_and_cache_mla_rope_fused(
            positions, q_pe, k_pe, kv_c, table, False, slots, cache, "auto", ONE
        )
    for left, right in zip(far, near, strict=True):
        assert torch.equal(as_bytes(left), as_bytes(right))


def test_many_heads_and_tokens() -> None:
    q_pe = torch.randn(300, 130, 64)
    k_pe, kv_c = torch.randn(300, 64), torch.randn(300, 512)
    before = q_pe.clone()
    kvops.concat_and_cache_mla_rope_fused(
        torch.zeros(300, dtype=torch.int64),
        q_pe,
        k_pe,
        kv_c,
        torch.tensor([[-1.0] * 32 + [0.0] * 32]),
        True,
        torch.arange(300),
        cache := poisoned(20, 16, 576, dtype=torch.float32),
        "auto",
        ONE,
    )
    assert torch.equal(q_pe, -before)
    assert torch.equal(cache.view(320, 576)[:300], torch.cat([kv_c, k_pe], dim=1))
