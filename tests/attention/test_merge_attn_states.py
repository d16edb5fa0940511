"""What only merge_attn_states can show: parts of a context, special values, in place, strides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kvops
from attention.calls import same_bytes
from cases.merge_attn_states import CASE, States
from devices import DEVICES
from kvops import reference
from registry import Args

INF, NAN = float("inf"), float("nan")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

on_every_device = pytest.mark.parametrize("device", DEVICES)


def make(states: States, device: str, seed: int = 0) -> Args:
    return states.make(torch.device(device), torch.Generator().manual_seed(seed))


def merged(args: Args) -> tuple[Tensor, Tensor | None]:
    kvops.merge_attn_states(**args)
    return args["output"], args["output_lse"]


@st.composite
def any_states(draw: st.DrawFn) -> States:
    tokens = draw(st.integers(0, 70))
    fp8 = draw(st.sampled_from([None, torch.float8_e4m3fn, torch.uint8]))
    return States(
        tokens=tokens,
        heads=draw(st.integers(1, 5)),
        head_size=draw(st.integers(1, 80)),
        dtype=draw(st.sampled_from(DTYPES)),
        fp8=fp8,
        with_lse=draw(st.booleans()),
        tokens_with_context=draw(st.none() | st.integers(0, tokens)),
        strided=draw(st.booleans()),
    )


@on_every_device
@given(states=any_states(), seed=st.integers(0, 100))
def test_any_states(states: States, seed: int, device: str) -> None:
    args, expected = make(states, device, seed), make(states, "cpu", seed)
    merged(args)
    reference.merge_attn_states(**expected)
    for name in CASE.outputs:
        if expected[name] is not None:
            CASE.compare(name, args[name].cpu(), expected[name], expected)


@on_every_device
@pytest.mark.parametrize("heads, head_size", [(1, 128), (3, 80), (33, 64)])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 127, 129])
def test_tiles_of_tokens(tokens: int, heads: int, head_size: int, device: str) -> None:
    """Whole tiles of tokens, and a last one that lacks some."""
    states = States(
        tokens=tokens,
        heads=heads,
        head_size=head_size,
        dtype=torch.bfloat16,
        tokens_with_context=max(tokens - 2, 0),
    )
    args, expected = make(states, device), make(states, "cpu")
    merged(args)
    reference.merge_attn_states(**expected)
    for name in CASE.outputs:
        CASE.compare(name, args[name].cpu(), expected[name], expected)


@on_every_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cut", [1, 7, 30, 39])
def test_parts_give_the_whole(cut: int, dtype: torch.dtype, device: str) -> None:
    """Softmax attention over 40 tokens, and over its two parts."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(3, 5, 40, generator=generator, dtype=torch.float64)
    values = torch.randn(3, 40, 64, generator=generator, dtype=torch.float64)

    def attention(part: slice) -> tuple[Tensor, Tensor]:
        output = torch.einsum("htk,hkd->thd", logits[..., part].softmax(-1), values[:, part])
        lse = logits[..., part].logsumexp(-1)
        return output.to(device, dtype), lse.float().to(device)

    whole, whole_lse = attention(slice(None))
    output, lse = torch.full_like(whole, NAN), torch.full_like(whole_lse, NAN)
    parts = (*attention(slice(cut)), *attention(slice(cut, None)))
    kvops.merge_attn_states(output, lse, *parts)
    rtol = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(output, whole, rtol=rtol, atol=rtol)
    torch.testing.assert_close(lse, whole_lse, rtol=1e-6, atol=1e-6)


@on_every_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("empty", [INF, -INF])
@pytest.mark.parametrize("part", ["prefix", "suffix"])
def test_an_empty_part_changes_nothing(
    part: str, empty: float, dtype: torch.dtype, device: str
) -> None:
    args = make(States(dtype=dtype), device)
    args[f"{part}_lse"].fill_(empty)
    other = {"prefix": "suffix", "suffix": "prefix"}[part]
    output, lse = merged(args)
    assert same_bytes(output, args[f"{other}_output"])
    assert same_bytes(lse, args[f"{other}_lse"])


@on_every_device
@pytest.mark.parametrize("prefix_lse", [INF, -INF])
@pytest.mark.parametrize("suffix_lse", [INF, -INF])
def test_two_empty_parts_give_the_prefix(prefix_lse: float, suffix_lse: float, device: str) -> None:
    args = make(States(), device)
    args["prefix_lse"].fill_(prefix_lse)
    args["suffix_lse"].fill_(suffix_lse)
    output, lse = merged(args)
    assert same_bytes(output, args["prefix_output"])
    assert (lse == -INF).all()


@on_every_device
@pytest.mark.parametrize("part", ["prefix", "suffix"])
@pytest.mark.parametrize("other", [0.0, INF, -INF, NAN])
def test_nan_lse(part: str, other: float, device: str) -> None:
    args = make(States(), device)
    args["prefix_lse"].fill_(other)
    args["suffix_lse"].fill_(other)
    args[f"{part}_lse"].fill_(NAN)
    output, lse = merged(args)
    assert output.isnan().all() and lse.isnan().all()


@on_every_device
def test_tokens_without_prefix_need_none(device: str) -> None:
    """Its tensors may end where the tokens with a prefix do."""
    args = make(States(tokens_with_context=4), device)
    expected = [t.clone() for t in merged(args)]
    args["prefix_output"] = args["prefix_output"][:4].clone()
    args["prefix_lse"] = args["prefix_lse"][:, :4].clone()
    assert all(map(same_bytes, merged(args), expected))
    assert same_bytes(args["output"][4:], args["suffix_output"][4:])
    assert same_bytes(args["output_lse"][:, 4:], args["suffix_lse"][:, 4:])


@on_every_device
@pytest.mark.parametrize("part", ["prefix", "suffix"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place(dtype: torch.dtype, part: str, device: str) -> None:
    args = make(States(dtype=dtype, tokens=50, tokens_with_context=33), device)
    expected = [t.clone() for t in merged(args)]
    args |= {"output": args[f"{part}_output"], "output_lse": args[f"{part}_lse"]}
    assert all(map(same_bytes, merged(args), expected))


@on_every_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_fp8_saturates_and_keeps_nan(dtype: torch.dtype, device: str) -> None:
    """For tokens without a prefix too; a scale of 0 makes infinities of everything but 0."""
    args = make(States(tokens=2, heads=1, head_size=4, dtype=dtype, fp8=torch.uint8), device)
    values = torch.tensor([1e4, -1e4, NAN, 0.0])
    args["prefix_output"].copy_(values)
    args["suffix_output"].copy_(values)
    args |= {"prefill_tokens_with_context": 1}
    assert merged(args)[0].tolist() == 2 * [[[0x7E, 0xFE, 0x7F, 0x00]]]
    args["output_scale"].fill_(0.0)
    assert merged(args)[0].tolist() == 2 * [[[0x7E, 0xFE, 0x7F, 0x7F]]]


@on_every_device
@pytest.mark.parametrize("name", ["output", "prefix_output", "suffix_output"])
def test_distant_tokens(name: str, device: str) -> None:
    args = make(States(tokens=3, dtype=torch.float16), device)
    expected = [t.clone() for t in merged(args)]
    stride = 2**30 + 2**28
    rows = args[name]
    memory = torch.empty(2 * stride + rows[0].numel(), dtype=rows.dtype, device=device)
    args[name] = memory.as_strided(rows.shape, [stride, *rows.stride()[1:]]).copy_(rows)
    assert all(map(same_bytes, merged(args), expected))
