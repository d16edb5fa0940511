"""What only concat_mla_q can show; the generic tests are over `cases/`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kvops
from mla.inputs import as_bytes, awkward, far_apart, poisoned


@given(
    tokens=st.integers(0, 20),
    heads=st.integers(0, 9),
    nope=st.integers(0, 70),
    rope=st.integers(0, 40),
    order=st.permutations([0, 1]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_cat(
    tokens: int,
    heads: int,
    nope: int,
    rope: int,
    order: list[int],
    dtype: torch.dtype,
    seed: int,
) -> None:
    """Of slices of one tensor, heads or tokens first, into a slice of another."""
    generator = torch.Generator().manual_seed(seed)
    shape = [(tokens, heads)[i] for i in order]
    fused = awkward(*shape, nope + rope + 3, dtype=dtype, generator=generator)
    ql_nope, q_pe = fused.permute(*order, 2)[..., 3:].split([nope, rope], dim=-1)
    q_out = poisoned(tokens, heads, nope + rope + 5, dtype=dtype)
    kvops.concat_mla_q(ql_nope, q_pe, q_out[..., 5:])
    assert torch.equal(as_bytes(q_out[..., 5:]), as_bytes(torch.cat([ql_nope, q_pe], dim=-1)))
    assert (as_bytes(q_out[..., :5]) == 0xFF).all()


@pytest.mark.parametrize("padding", [0, 32, 5], ids=["lines", "gaps between lines", "no lines"])
@pytest.mark.parametrize("first", [0, 1], ids=["line", "in a line"])
def test_large_outputs(first: int, padding: int) -> None:
    """They are stored around the cache if their rows are whole cache lines."""
    tokens, heads, width = 70, 128, 576 + padding
    ql_nope, q_pe = torch.randn(tokens, heads, 512).half(), torch.randn(tokens, heads, 64).half()
    memory = torch.full((tokens * heads * width + 64,), 7, dtype=torch.float16)
    q_out = memory[first : first + tokens * heads * width].view(tokens, heads, width)
    kvops.concat_mla_q(ql_nope, q_pe, q_out[..., :576])
    assert torch.equal(q_out[..., :576], torch.cat([ql_nope, q_pe], dim=-1))
    assert (q_out[..., 576:] == 7).all()
    assert (memory[first + q_out.numel() :] == 7).all() and (memory[:first] == 7).all()


def test_offsets_beyond_31_bits() -> None:
    ql_nope, q_pe = torch.randn(2, 3, 512).bfloat16(), torch.randn(2, 3, 64).bfloat16()
    q_out = far_apart(torch.zeros(2, 3, 576, dtype=torch.bfloat16))
    kvops.concat_mla_q(far_apart(ql_nope), far_apart(q_pe), q_out)
    assert torch.equal(q_out, torch.cat([ql_nope, q_pe], dim=-1))
