"""nvfp4 pages: round trips and their error, layouts, tiles of scales, the views of a page."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import kvops
from cache.inputs import WRITER_DTYPES, mostly_tame, poisoned
from kvops.reference.cache import quantize_nvfp4
from kvops.reference.numerics import E4M3, decode_e2m1, decode_fp8
from tensor_bytes import byte_view

KINDS = ("nvfp4", "nvfp4_linear")
NUMBERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
ONE = torch.ones(1)

every_kind = pytest.mark.parametrize("kind", KINDS)


def pages(
    blocks: int, block_size: int, heads: int, head_size: int, layout: str = "NHD"
) -> tuple[Tensor, Tensor]:
    """Caches of keys and values in the same pages, as engines allocate them."""
    entry = head_size // 16 * 9
    inner = [block_size, heads, entry] if layout == "NHD" else [heads, block_size, entry]
    both = poisoned([blocks, 2, *inner], torch.uint8)
    both = both if layout == "NHD" else both.transpose(2, 3)
    return both[:, 0], both[:, 1]


def write(
    rows: tuple[Tensor, Tensor],
    caches: tuple[Tensor, Tensor],
    slots: Tensor,
    kind: str,
    scale: float = 1.0,
) -> None:
    scales = torch.tensor([scale]), torch.tensor([scale / 2])
    kvops.reshape_and_cache_flash(*rows, *caches, slots, kind, *scales)


def read(
    caches: tuple[Tensor, Tensor], slots: Tensor, kind: str, scale: float = 1.0
) -> list[Tensor]:
    scales = torch.tensor([scale]), torch.tensor([scale / 2])
    both = kvops.dequantize_nvfp4_cache(*caches, *scales, kind)
    return [values.flatten(0, 1)[slots] for values in both]


@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(WRITER_DTYPES),
    kind=st.sampled_from(KINDS),
    layout=st.sampled_from(["NHD", "HND"]),
    heads=st.integers(1, 4),
    quarters=st.integers(1, 4),
    block_size=st.sampled_from([4, 8, 12, 16]),
    scale=st.sampled_from([1.0, 0.01, 3.7, 448.0]),
)
@settings(max_examples=150, deadline=None)
def test_round_trip_is_as_near_as_the_format_allows(
    seed: int,
    dtype: torch.dtype,
    kind: str,
    layout: str,
    heads: int,
    quarters: int,
    block_size: int,
    scale: float,
) -> None:
    """Between neighbouring numbers there are at most 2 units of the group's scale.

    A scale that is normal is at most 1/16 off the sixth of the largest magnitude, so what is
    beyond 6 units is cut by less than half a unit.
    """
    generator = torch.Generator().manual_seed(seed)
    slots = torch.randperm(5 * block_size, generator=generator)[:19]
    shape = [len(slots), heads, 64 * quarters]
    # Of group magnitudes for which scales are normal and not cut.
    powers = torch.randint(-3, 8, [*shape[:-1], 4 * quarters, 1], generator=generator)
    groups = torch.randn([*shape[:-1], 4 * quarters, 16], generator=generator).clamp(-4, 4)
    groups[..., 0] = 3.0
    rows = (groups * 2.0**powers).flatten(-2) * scale
    rows = (rows / 2).to(dtype), (rows / 4).to(dtype)
    caches = pages(5, block_size, heads, 64 * quarters, layout)
    write(rows, caches, slots, kind, scale)
    for values, result in zip(rows, read(caches, slots, kind, scale), strict=True):
        exact = values.double().unflatten(-1, (-1, 16))
        unit = exact.abs().amax(-1, keepdim=True) / 6 * (1 + 2**-4)
        error = (result.double().unflatten(-1, (-1, 16)) - exact).abs()
        assert (error <= unit * (1 + 1e-5)).all()
        # And on the whole far better than that: the numbers below 2 units are half a unit apart.
        small = exact.abs() <= 1.4 * unit
        assert (error[small] <= (unit.expand_as(error) / 4 * (1 + 1e-5))[small]).all()


@every_kind
def test_numbers_of_the_format_come_back_as_they_are(kind: str) -> None:
    numbers = torch.tensor([*NUMBERS, *(-number for number in NUMBERS)])
    scales = 2.0 ** torch.arange(-6, 9)
    # A group that has a 6 in it, under every power of two that e4m3 can hold.
    groups = numbers * scales.unsqueeze(1)
    row = torch.cat([groups.flatten(), torch.zeros(16)]).bfloat16().view(1, 1, 256)
    caches = pages(1, 4, 1, 256)
    write((row, row / 2), caches, torch.tensor([2]), kind)
    for values, result in zip((row, row / 2), read(caches, torch.tensor([2]), kind), strict=True):
        assert torch.equal(result, values[0].float().view(result.shape))
        assert torch.equal(result.signbit(), values[0].signbit().view(result.shape))


def test_bytes_of_one_group_by_hand() -> None:
    row = torch.zeros(1, 1, 16)
    row[0, 0] = torch.tensor(
        [12.0, -1, 1.5, 0.4, -0.5, 0.6, 2.5, -3.5, 5, 7, 10, -11, 8, 9, -0.0, 0]
    )
    key_cache, value_cache = pages(1, 1, 1, 16)
    kvops.reshape_and_cache_flash(
        row, row * 0, key_cache, value_cache, torch.tensor([0]), "nvfp4_linear", ONE, ONE
    )
    # Scale 2: 6, -0.5, 0.75 -> 1 (tie), 0.2 -> 0, -0.25 -> -0 (tie), 0.3 -> 0.5, 1.25 -> 1 (tie),
    # -1.75 -> -2 (tie), 2.5 -> 2 (tie), 3.5 -> 4 (tie), 5 -> 4 (tie), -5.5 -> -6, 4, 4.5 -> 4.
    codes = [7, 9, 2, 0, 8, 1, 2, 12, 4, 6, 6, 15, 6, 6, 8, 0]
    expected = [low | high << 4 for low, high in zip(codes[::2], codes[1::2], strict=True)]
    assert key_cache.flatten().tolist() == [*expected, 0x40]
    signs = [8 * (number.signbit()) for number in (row * 0)[0, 0]]
    zeros = [int(low) | int(high) << 4 for low, high in zip(signs[::2], signs[1::2], strict=True)]
    assert value_cache.flatten().tolist() == [*zeros, 0]


@pytest.mark.parametrize(
    ("values", "codes", "scale_byte"),
    [
        # NaN is no magnitude, and becomes 6; infinity takes the largest scale for its own.
        ([float("nan"), 12.0], [7, 7], 0x40),
        ([float("-nan"), -12.0], [7, 15], 0x40),
        ([float("inf"), 12.0], [7, 0], 0x7E),
        ([float("-inf"), 2688.0], [15, 7], 0x7E),
        ([float("nan"), 0.0], [7, 0], 0x00),
        # A scale below the smallest e4m3, and half of it, which goes to the even 0.
        ([6 * 2.0**-9, 2.0**-9], [7, 2], 0x01),
        ([6 * 2.0**-10, 2.0**-9], [0, 0], 0x00),
    ],
    ids=str,
)
def test_odd_groups(values: list[float], codes: list[int], scale_byte: int) -> None:
    row = torch.zeros(1, 1, 16)
    row[0, 0, :2] = torch.tensor(values)
    key_cache, value_cache = pages(1, 1, 1, 16)
    kvops.reshape_and_cache_flash(
        row, row, key_cache, value_cache, torch.tensor([0]), "nvfp4_linear", ONE, ONE
    )
    expected = [codes[0] | codes[1] << 4, *[0] * 7, scale_byte]
    assert key_cache.flatten().tolist() == expected
    assert value_cache.flatten().tolist() == expected


@every_kind
def test_layouts_hold_the_same_tokens(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = tuple(mostly_tame([40, 3, 128], torch.bfloat16, generator) for _ in range(2))
    slots = torch.randperm(64, generator=generator)[:40]
    written = []
    for layout in ("NHD", "HND"):
        caches = pages(4, 16, 3, 128, layout)
        write(rows, caches, slots, kind)
        written.append(kvops.nvfp4_split_views(*caches))
    # Tiles are of tokens and groups of one head, so heads keep them whatever the layout.
    for left, right in zip(*written, strict=True):
        assert torch.equal(byte_view(left), byte_view(right))


def test_kinds_differ_in_the_scales_of_values_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = tuple(mostly_tame([64, 2, 192], torch.float16, generator) for _ in range(2))
    tiled, linear = (pages(4, 16, 2, 192) for _ in range(2))
    write(rows, tiled, torch.arange(64), "nvfp4")
    write(rows, linear, torch.arange(64), "nvfp4_linear")
    tiled_views, linear_views = kvops.nvfp4_split_views(*tiled), kvops.nvfp4_split_views(*linear)
    for part in ("key_data", "key_scales", "value_data"):
        left, right = getattr(tiled_views, part), getattr(linear_views, part)
        assert torch.equal(byte_view(left), byte_view(right))
    # As vLLM's tests undo it: [T/4, 4, 4, S/4] permuted to (0, 2, 3, 1) is what is stored.
    scales = linear_views.value_scales.view(torch.uint8).permute(0, 2, 1, 3)
    swizzled = scales.reshape(4, 2, 4, 4, 4, 3).permute(0, 1, 2, 4, 5, 3).reshape(4, 2, 16, 12)
    stored = tiled_views.value_scales.view(torch.uint8).permute(0, 2, 1, 3)
    assert torch.equal(stored, swizzled)
    assert not torch.equal(stored, scales)


@every_kind
def test_views_are_what_was_quantised(kind: str) -> None:
    rows = mostly_tame([16, 2, 64], torch.bfloat16, torch.Generator().manual_seed(0))
    scale = torch.tensor([0.3])
    caches = pages(2, 8, 2, 64, "HND")
    slots = torch.arange(16)
    kvops.reshape_and_cache_flash(rows, rows, *caches, slots, kind, scale, scale)
    codes, scales = quantize_nvfp4(rows, scale)
    views = kvops.nvfp4_split_views(*caches)
    assert [view.dtype for view in views] == [torch.uint8, torch.float8_e4m3fn] * 2
    data = views.key_data.flatten(0, 1)
    assert torch.equal(torch.stack([data & 15, data >> 4], -1).flatten(-2), codes)
    assert torch.equal(views.key_scales.view(torch.uint8).flatten(0, 1), scales)
    factors = decode_fp8(scales, E4M3) * scale
    expected = decode_e2m1(codes).unflatten(-1, (-1, 16)) * factors.unsqueeze(-1)
    for result in kvops.dequantize_nvfp4_cache(*caches, scale, scale, kind, torch.float16):
        assert torch.equal(byte_view(result.flatten(0, 1)), byte_view(expected.flatten(-2).half()))
    # Views: what is written to them is in the cache.
    views.value_data.fill_(0)
    assert kvops.dequantize_nvfp4_cache(*caches, scale, scale, kind)[1].nan_to_num().eq(0).all()


@every_kind
def test_tokens_without_a_slot_are_as_if_not_there(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = tuple(mostly_tame([60, 2, 64], torch.bfloat16, generator) for _ in range(2))
    slots = torch.randperm(64, generator=generator)[:60]
    kept = torch.rand(60, generator=generator) < 0.6
    hostile = slots.clone()
    nowhere = torch.tensor([-1, -(2**63), -64, 64, 2**31, 2**40, 2**63 - 1])
    hostile[~kept] = nowhere[torch.arange(int((~kept).sum())) % len(nowhere)]
    some, few = (pages(4, 16, 2, 64) for _ in range(2))
    write(rows, some, hostile, kind)
    write((rows[0][kept], rows[1][kept]), few, slots[kept], kind)
    assert torch.equal(some[0], few[0]) and torch.equal(some[1], few[1])
    with kvops.checked(), pytest.raises(RuntimeError, match=r"slot_mapping\["):
        write(rows, some, hostile, kind)


def test_blocks_beyond_2_to_the_31_bytes() -> None:
    rows = mostly_tame([2, 3, 64], torch.bfloat16, torch.Generator().manual_seed(0))
    near = pages(2, 16, 3, 64)
    stride = 2**31 + 64
    far = []
    for _ in range(2):
        # Nobody touches the gigabytes between them, so they take no memory.
        buffer = torch.empty(stride + 16 * 3 * 36, dtype=torch.uint8)
        cache = buffer.as_strided([2, 16, 3, 36], [stride, 108, 36, 1])
        far.append(cache.copy_(near[0]))
    write((rows, rows), near, torch.tensor([31, 2]), "nvfp4")
    write((rows, rows), (far[0], far[1]), torch.tensor([31, 2]), "nvfp4")
    assert torch.equal(near[0], far[0]) and torch.equal(near[1], far[1])


def test_what_the_readers_refuse() -> None:
    key_cache, value_cache = pages(2, 8, 3, 64)
    with pytest.raises(RuntimeError, match="key_cache must be uint8"):
        kvops.nvfp4_split_views(key_cache.half(), value_cache)
    with pytest.raises(RuntimeError, match="value_cache must be uint8"):
        kvops.nvfp4_split_views(key_cache, value_cache[..., 1:])
    with pytest.raises(RuntimeError, match="value_cache must have pages without gaps"):
        kvops.nvfp4_split_views(key_cache, value_cache[..., :27])
    with pytest.raises(RuntimeError, match="kv_cache_dtype must be one of nvfp4, nvfp4_linear"):
        kvops.dequantize_nvfp4_cache(key_cache, value_cache, ONE, ONE, "fp8")
    with pytest.raises(RuntimeError, match="value_cache must have a block size"):
        kvops.dequantize_nvfp4_cache(*pages(2, 6, 3, 64), ONE, ONE)
    # Four scales would fit the four groups of a head, and give numbers.
    with pytest.raises(RuntimeError, match=r"v_scale must be one float32 element, got .* \[4\]"):
        kvops.dequantize_nvfp4_cache(key_cache, value_cache, ONE, torch.ones(4))
    with pytest.raises(RuntimeError, match=r"k_scale must be one float32 element, got .*int64"):
        kvops.dequantize_nvfp4_cache(key_cache, value_cache, ONE.long(), ONE)
