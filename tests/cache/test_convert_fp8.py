"""What only convert_fp8 can show: every layout, round trips, offsets beyond 2^31, large tensors."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import kvops
from cache.inputs import WRITER_DTYPES, awkward, poisoned
from kvops import reference
from tensor_bytes import byte_view


def laid_out(tensor: Tensor, order: tuple[int, ...], gap: int = 0) -> Tensor:
    """The same elements, outermost dimension first in `order`, with `gap` elements after each."""
    shape = [tensor.size(dim) for dim in order]
    storage = poisoned([*shape, 1 + gap], tensor.dtype)[..., 0]
    view = storage.permute([order.index(dim) for dim in range(tensor.dim())])
    byte_view(view).copy_(byte_view(tensor))
    return view


@pytest.mark.parametrize("dst_order", list(permutations(range(3))), ids=str)
@pytest.mark.parametrize("src_order", list(permutations(range(3))), ids=str)
def test_every_layout_of_both_tensors(
    dst_order: tuple[int, ...], src_order: tuple[int, ...]
) -> None:
    values = awkward([5, 7, 70], torch.bfloat16, torch.Generator().manual_seed(0))
    expected = poisoned([5, 7, 70], torch.uint8)
    reference.convert_fp8(expected, values, 0.3, "fp8")
    stored = laid_out(poisoned([5, 7, 70], torch.uint8), dst_order)
    kvops.convert_fp8(stored, laid_out(values, src_order), 0.3)
    assert torch.equal(stored, expected)
    loaded = laid_out(poisoned([5, 7, 70], torch.float16), dst_order)
    kvops.convert_fp8(loaded, laid_out(expected, src_order), 0.3)
    back = poisoned([5, 7, 70], torch.float16)
    reference.convert_fp8(back, expected, 0.3, "fp8")
    assert torch.equal(byte_view(loaded), byte_view(back))


@given(
    shape=st.lists(st.integers(1, 6), max_size=5),
    gaps=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(WRITER_DTYPES),
)
@settings(max_examples=60, deadline=None)
def test_any_rank_and_strides(
    shape: list[int], gaps: tuple[int, int], seed: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = awkward(shape, dtype, generator)
    orders = [tuple(torch.randperm(len(shape), generator=generator).tolist()) for _ in range(2)]
    dst = laid_out(poisoned([*shape, 1], torch.uint8)[..., 0], orders[0], gaps[0])
    kvops.convert_fp8(dst, laid_out(values, orders[1], gaps[1]), 1.7, "fp8_e4m3")
    expected = poisoned([*shape, 1], torch.uint8)[..., 0].contiguous()
    reference.convert_fp8(expected, values.contiguous(), 1.7, "fp8_e4m3")
    assert torch.equal(dst, expected)
    # The bytes between the elements are nobody's.
    around = dst.as_strided([dst.untyped_storage().nbytes()], [1], 0)
    assert int((around != 0x7F).sum()) <= dst.numel()


@pytest.mark.parametrize("dtype", WRITER_DTYPES, ids=str)
@pytest.mark.parametrize("scale", [1.0, 0.25, 8.0])
def test_every_byte_survives_the_round_trip(dtype: torch.dtype, scale: float) -> None:
    every_byte = torch.arange(256, dtype=torch.uint8)
    loaded = torch.empty(256, dtype=dtype)
    stored = torch.empty(256, dtype=torch.uint8)
    kvops.convert_fp8(loaded, every_byte, scale)
    kvops.convert_fp8(stored, loaded, scale)
    expected = every_byte.clone()
    expected[0xFF] = 0x7F  # there is one NaN
    assert torch.equal(stored, expected)


def test_rows_beyond_2_to_the_31_elements() -> None:
    values = awkward([2, 3, 40], torch.float16, torch.Generator().manual_seed(0))
    expected = poisoned([2, 3, 40], torch.uint8)
    reference.convert_fp8(expected, values, 0.3, "fp8")
    far = 2**31 + 128
    # Nobody touches the gigabytes in between, so they take no memory.
    src = torch.empty(far + 120, dtype=torch.float16).as_strided([2, 3, 40], [far, 40, 1])
    src.copy_(values)
    dst = torch.empty(far + 120, dtype=torch.uint8).as_strided([2, 3, 40], [far, 40, 1])
    kvops.convert_fp8(dst, src, 0.3)
    assert torch.equal(dst, expected)


def test_threads_share_a_large_tensor() -> None:
    values = awkward([1, 1000], torch.float32, torch.Generator().manual_seed(0)).expand(300, 1000)
    expected = poisoned([1, 1000], torch.uint8)
    reference.convert_fp8(expected, values[:1].contiguous(), 0.3, "fp8")
    dst = poisoned([300, 1000], torch.uint8)
    kvops.convert_fp8(dst, values.contiguous(), 0.3)
    assert torch.equal(dst, expected.expand(300, 1000))
