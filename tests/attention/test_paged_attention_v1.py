"""What only paged attention can show: masks, invariances, accuracy, every size, huge offsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attention.calls import (
    assert_matches_reference,
    attend,
    make,
    reference_out,
    repaged,
    same_bytes,
    tokens_of,
)
from attention.inputs import BlockSparse, Problem, compare
from devices import DEVICES
from registry import Args

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CACHES = ("auto", "fp8", "fp8_e5m2")
SIZES = range(8, 257, 8)

on_every_device = pytest.mark.parametrize("device", DEVICES)


def around(*boundaries: int) -> tuple[int, ...]:
    """Lengths one short of each boundary, on it, and one past it."""
    return tuple(sorted({n + d for n in boundaries for d in (-1, 0, 1)}))


def problems_with(problems: dict[Any, Problem], check: Callable[[Problem], None]) -> dict[Any, str]:
    """What is wrong with which problem."""
    found = {}
    for name, problem in problems.items():
        try:
            check(problem)
        except AssertionError as error:
            found[name] = str(error)
    return found


# ---- every size


@on_every_device
@pytest.mark.parametrize("head_size", SIZES)
def test_every_block_size(head_size: int, device: str) -> None:
    """With every dtype and cache in turn, so that each meets every head size and block size."""
    kinds = [(dtype, cache) for dtype in DTYPES for cache in CACHES]
    problems = {}
    for block_size in SIZES:
        dtype, cache = kinds[(head_size + block_size) // 8 % len(kinds)]
        problems[block_size, dtype, cache] = Problem(
            (block_size + 3, 2),
            num_heads=3,
            num_kv_heads=1,
            head_size=head_size,
            block_size=block_size,
            dtype=dtype,
            kv_cache_dtype=cache,
            x=8 if cache != "auto" and head_size % 16 else None,
        )
    found = problems_with(problems, lambda p: assert_matches_reference(make(p, device)))
    assert found == {}


@on_every_device
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 7, 8, 9, 16, 33])
def test_every_group_of_heads(group: int, dtype: torch.dtype, cache: str, device: str) -> None:
    problem = Problem(
        (40, 17), num_heads=2 * group, num_kv_heads=2, dtype=dtype, kv_cache_dtype=cache
    )
    assert_matches_reference(make(problem, device))


@on_every_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [8, 16, 24, 40, 128, 200, 256])
def test_lengths_around_every_boundary(block_size: int, dtype: torch.dtype, device: str) -> None:
    lengths = around(1, 4, 8, 16, block_size, 2 * block_size, 512, 1024)
    problem = Problem(
        lengths, num_heads=2, num_kv_heads=1, head_size=16, block_size=block_size, dtype=dtype
    )
    assert_matches_reference(make(problem, device))


@on_every_device
@settings(max_examples=60)
@given(data=st.data())
def test_any_problem(data: st.DataObject, device: str) -> None:
    draw = data.draw
    cache = draw(st.sampled_from(CACHES))
    num_kv_heads = draw(st.integers(1, 3))
    sparse = st.builds(
        BlockSparse,
        tp_rank=st.integers(0, 3),
        blocksparse_local_blocks=st.integers(-1, 3),
        blocksparse_vert_stride=st.integers(0, 5),
        blocksparse_block_size=st.sampled_from([1, 8, 20, 64]),
        blocksparse_head_sliding_step=st.integers(-3, 3),
    )
    problem = Problem(
        tuple(draw(st.lists(st.integers(0, 700), min_size=1, max_size=3))),
        num_heads=num_kv_heads * draw(st.integers(1, 5)),
        num_kv_heads=num_kv_heads,
        head_size=draw(st.sampled_from([8, 16, 40, 64, 120, 128])),
        block_size=draw(st.sampled_from([8, 16, 32, 48, 64])),
        dtype=draw(st.sampled_from(DTYPES)),
        kv_cache_dtype=cache,
        x=None if cache == "auto" else 8,
        alibi=draw(st.booleans()),
        sparse=draw(sparse),
        k_scale=draw(st.sampled_from([0.25, 1.0, 1.3])),
        v_scale=draw(st.sampled_from([0.5, 1.0, 0.7])),
        strided=draw(st.booleans()),
    )
    assert_matches_reference(make(problem, device, seed=draw(st.integers(0, 100))))


# ---- accuracy


@on_every_device
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 100, 3000])
def test_error_is_at_most_twice_that_of_pytorch(
    length: int, dtype: torch.dtype, cache: str, device: str
) -> None:
    """Of PyTorch with an fp32 softmax, against float64. Scales are powers of two: exact."""
    problem = Problem(
        (length,) * 4,
        num_heads=8,
        head_size=128,
        dtype=dtype,
        kv_cache_dtype=cache,
        k_scale=0.5,
        v_scale=2.0,
    )
    args = make(problem, device)
    exact = reference_out(args, torch.float64)
    error = (attend(args).cpu() - exact).abs().max()
    pytorch_error = (reference_out(args, torch.float32) - exact).abs().max()
    assert error <= 2 * pytorch_error


# ---- what must not be read


def assert_same_attention(actual: Tensor, expected: Tensor, args: Args) -> None:
    """Equal bytes on the CPU; on a GPU, other lengths are split and added up in another way."""
    if actual.is_cuda:
        compare("out", actual.cpu(), expected.cpu(), args)
    else:
        assert same_bytes(actual, expected)


def table_entry(args: Args, seq: int, position: int) -> int:
    return int(args["block_tables"][seq, position // args["block_size"]])


@on_every_device
@pytest.mark.parametrize("poison", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("block_size", [8, 16, 24, 256])
def test_tokens_past_the_end(block_size: int, poison: float, device: str) -> None:
    """Whatever the rest of the last page holds: the problem's own poison is NaN."""
    args = make(Problem(around(block_size, 512), block_size=block_size), device)
    expected = attend(args)
    assert expected.isfinite().all()
    for name in ("key_cache", "value_cache"):
        args[name].masked_fill_(args[name].isnan(), poison)
    assert same_bytes(attend(args), expected)


@on_every_device
@pytest.mark.parametrize("bad", [-1, -(2**31), "num_blocks", 2**31 - 1])
def test_bad_blocks_are_left_out(bad: int | str, device: str) -> None:
    """As if the sequence did not have them."""
    args = make(Problem((160,), block_size=16), device)
    tables = args["block_tables"]
    shorter = {
        "block_tables": torch.cat([tables[:, :3], tables[:, 5:]], dim=1),
        "seq_lens": args["seq_lens"] - 32,
    }
    expected = attend(args | shorter)
    tables[0, 3:5] = args["key_cache"].size(0) if bad == "num_blocks" else bad
    assert_same_attention(attend(args), expected, args)


@on_every_device
def test_only_bad_blocks(device: str) -> None:
    args = make(Problem((600, 5)), device)
    args["block_tables"].fill_(-1)
    assert (attend(args) == 0).all()


@on_every_device
def test_hidden_blocks_may_hold_nan(device: str) -> None:
    """A block that one head sees and another of the same KV head does not."""
    sparse = BlockSparse(0, 1, 4, 16, 1)
    problem = Problem((800,), num_heads=4, num_kv_heads=1, block_size=16, sparse=sparse)
    args = make(problem, device)
    expected = attend(args)
    # Pattern block 5 is seen where (5 + head + 1) % 4 == 0: by head 2 only.
    block = table_entry(args, 0, 5 * 16)
    args["key_cache"][block] = torch.nan
    args["value_cache"][block] = torch.nan
    out = attend(args)
    assert out[:, 2].isnan().all()
    seeing_nothing = [0, 1, 3]
    assert same_bytes(out[:, seeing_nothing], expected[:, seeing_nothing])


@on_every_device
def test_everything_hidden_gives_zeros(device: str) -> None:
    sparse = BlockSparse(0, 0, 100, 64, 0)
    args = make(Problem((700, 40), sparse=sparse), device)
    assert (attend(args) == 0).all()


@on_every_device
def test_empty_sequences_between_others(device: str) -> None:
    lengths = (0, 30, 0, 0, 700, 0)
    out = attend(make(Problem(lengths), device))
    assert [bool((row != 0).any()) for row in out] == [length > 0 for length in lengths]
    assert (out[0] == 0).all()


# ---- what must be seen


@on_every_device
@pytest.mark.parametrize("position", [0, 36, 511, 512, 699])
def test_nan_in_a_key(position: int, device: str) -> None:
    args = make(Problem((700,), num_heads=4, num_kv_heads=2), device)
    block = table_entry(args, 0, position)
    tokens_of(args["key_cache"])[block, position % 16, 1, 2] = torch.nan
    out = attend(args)
    assert out[:, 2:].isnan().all() and out[:, :2].isfinite().all()


@on_every_device
@pytest.mark.parametrize("position", [0, 36, 511, 512, 699])
def test_nan_in_a_value(position: int, device: str) -> None:
    args = make(Problem((700,), num_heads=4, num_kv_heads=2), device)
    block = table_entry(args, 0, position)
    tokens_of(args["value_cache"])[block, position % 16, 0, 7] = torch.nan
    expected = torch.zeros(1, 4, 32, dtype=torch.bool)
    expected[:, :2, 7] = True
    assert torch.equal(attend(args).isnan().cpu(), expected)


@on_every_device
@pytest.mark.parametrize("cache", ["fp8", "fp8_e5m2"])
@pytest.mark.parametrize("byte", [0x7F, 0xFF])
def test_nan_bytes(byte: int, cache: str, device: str) -> None:
    args = make(Problem((20,), num_heads=1, num_kv_heads=1, kv_cache_dtype=cache), device)
    block = table_entry(args, 0, 3)
    tokens_of(args["value_cache"])[block, 3, 0, 5] = byte
    assert attend(args)[0, 0].isnan().nonzero().flatten().tolist() == [5]
    tokens_of(args["key_cache"])[block, 3, 0, 0, 0] = byte
    assert attend(args).isnan().all()


@on_every_device
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cache", ["fp8", "fp8_e5m2"])
def test_every_byte_of_a_value(cache: str, dtype: torch.dtype, device: str) -> None:
    """A sequence of one token gives that token: every fp8 number, subnormals included."""
    problem = Problem(
        (1,) * 8, num_heads=1, num_kv_heads=1, dtype=dtype, kv_cache_dtype=cache, v_scale=0.5
    )
    args = make(problem, device)
    every_byte = torch.arange(256, dtype=torch.uint8, device=device).view(8, 32)
    blocks = args["block_tables"][:, 0].long()
    tokens_of(args["value_cache"])[blocks, 0, 0] = every_byte
    assert_matches_reference(args)


# ---- what must not matter


@on_every_device
@pytest.mark.parametrize("cache", CACHES)
def test_order_of_physical_blocks(cache: str, device: str) -> None:
    args = make(Problem((600, 33, 70), kv_cache_dtype=cache), device)
    expected = attend(args)
    num_blocks = args["key_cache"].size(0)
    order = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(1)).to(device)
    tables = args["block_tables"]
    is_block = (tables >= 0) & (tables < num_blocks)
    position_of = torch.argsort(order).int()
    moved = {
        "key_cache": args["key_cache"][order],
        "value_cache": args["value_cache"][order],
        "block_tables": torch.where(
            is_block, position_of[tables.where(is_block, 0).long()], tables
        ),
    }
    assert same_bytes(attend(args | moved), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alibi", [False, True])
def test_page_size(alibi: bool, dtype: torch.dtype) -> None:
    """The same tokens, whatever the pages are: equal but for the order of additions."""
    args = make(Problem((700, 33, 512), block_size=16, dtype=dtype, alibi=alibi))
    expected = reference_out(args, torch.float64)
    problems = {size: repaged(args, size) for size in (8, 24, 64, 120, 256)}
    bound = 2 * (reference_out(args, torch.float32) - expected).abs().max()
    errors = {size: (attend(other) - expected).abs().max() for size, other in problems.items()}
    assert {size: error for size, error in errors.items() if error > bound} == {}


@on_every_device
def test_order_and_company_of_sequences(device: str) -> None:
    args = make(Problem((600, 1, 0, 70, 1030, 512), dtype=torch.bfloat16), device)
    expected = attend(args)
    for order in ([5, 4, 3, 2, 1, 0], [1, 4], [4], [0, 0, 3]):
        chosen = {name: args[name][order] for name in ("out", "query", "block_tables", "seq_lens")}
        assert_same_attention(attend(args | chosen), expected[order], args)


@pytest.mark.parametrize("dtype", DTYPES)
def test_number_of_threads(dtype: torch.dtype) -> None:
    """Not a bit changes, run after run and with any number of threads."""
    args = make(Problem((600, 1, 0, 70, 1030), dtype=dtype, num_heads=8))
    expected = attend(args)
    usual = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7, usual):
            torch.set_num_threads(threads)
            assert same_bytes(attend(args), expected), threads
    finally:
        torch.set_num_threads(usual)


@on_every_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_scale_the_result(dtype: torch.dtype, device: str) -> None:
    args = make(Problem((600, 33), dtype=dtype), device)
    expected = attend(args)
    args["value_cache"] *= -4
    assert same_bytes(attend(args), expected * -4)


@on_every_device
@pytest.mark.parametrize("cache", ["fp8", "fp8_e5m2"])
def test_scales_of_an_fp8_cache(cache: str, device: str) -> None:
    """k_scale is a factor of the softmax scale, v_scale one of the result."""
    args = make(Problem((600, 33), kv_cache_dtype=cache), device)
    args["k_scale"].fill_(0.5)
    args["v_scale"].fill_(2.0)
    scaled = attend(args)
    args["k_scale"].fill_(1.0)
    args["v_scale"].fill_(1.0)
    plain = attend(args | {"scale": args["scale"] * 0.5})
    assert same_bytes(scaled, plain * 2)


@on_every_device
def test_scales_do_not_matter_without_fp8(device: str) -> None:
    args = make(Problem((50,)), device)
    expected = attend(args)
    ignored = {"k_scale": torch.zeros(0, dtype=torch.int64), "v_scale": torch.tensor([torch.nan])}
    assert same_bytes(attend(args | ignored), expected)


@on_every_device
def test_alibi_slope_of_zero(device: str) -> None:
    args = make(Problem((600, 33)), device)
    expected = attend(args)
    slopes = torch.zeros(4, device=device)
    assert same_bytes(attend(args | {"alibi_slopes": slopes}), expected)


# ---- offsets beyond 2^31 elements


def far_apart(rows: Tensor, stride: int) -> Tensor:
    """The same rows `stride` elements apart, in memory that is mostly never touched."""
    size = stride * (rows.size(0) - 1) + rows[0].numel()
    memory = torch.empty(size, dtype=rows.dtype, device=rows.device)
    view = memory.as_strided(rows.shape, [stride, *rows[0].contiguous().stride()])
    return view.copy_(rows)


@on_every_device
@pytest.mark.parametrize("name", ["key_cache", "value_cache"])
def test_distant_blocks(name: str, device: str) -> None:
    args = make(Problem((40,), kv_cache_dtype="fp8", spare_blocks=0), device)
    expected = attend(args)
    args[name] = far_apart(args[name], 2**30 + 2**28)
    assert args[name].stride(0) * (args[name].size(0) - 1) > 2**31
    assert same_bytes(attend(args), expected)


@on_every_device
@pytest.mark.parametrize("name", ["key_cache", "value_cache"])
def test_distant_heads(name: str, device: str) -> None:
    args = make(Problem((40,), num_heads=6, num_kv_heads=3, kv_cache_dtype="fp8"), device)
    expected = attend(args)
    args[name] = far_apart(args[name].transpose(0, 1), 2**30 + 2**28).transpose(0, 1)
    assert same_bytes(attend(args), expected)


@on_every_device
@pytest.mark.parametrize("name", ["query", "out"])
def test_distant_rows(name: str, device: str) -> None:
    args = make(Problem((40, 9, 17), dtype=torch.float16), device)
    expected = attend(args)
    args[name] = far_apart(args[name], 2**30 + 2**28)
    assert same_bytes(attend(args), expected)


@on_every_device
def test_distant_tables(device: str) -> None:
    args = make(Problem((40, 9, 17)), device)
    expected = attend(args)
    args["block_tables"] = far_apart(args["block_tables"], 2**30 + 2**28)
    assert same_bytes(attend(args), expected)
