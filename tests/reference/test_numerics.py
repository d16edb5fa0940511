"""FP8 bytes, NaN and fused multiply-add of the reference, by hand and against independent means."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from kvops.reference.mla import round_up_to_power_of_two
from kvops.reference.numerics import (
    E4M3,
    E5M2,
    Fp8Format,
    bits,
    decode_fp8,
    encode_fp8,
    fma_fp32,
    fp8_format,
    load_fp8,
    store_fp8,
)

INF, NAN = float("inf"), float("nan")
FORMATS = [
    pytest.param(E4M3, torch.float8_e4m3fn, id="e4m3"),
    pytest.param(E5M2, torch.float8_e5m2, id="e5m2"),
]
ALL_BYTES = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("fmt", "value", "byte"),
    [
        (E4M3, 0.0, 0x00),
        (E4M3, -0.0, 0x80),
        (E4M3, 1.0, 0x38),
        (E4M3, -2.0, 0xC0),
        (E4M3, 448.0, 0x7E),
        (E4M3, 464.0, 0x7E),
        (E4M3, 1e30, 0x7E),
        (E4M3, INF, 0x7E),
        (E4M3, -INF, 0xFE),
        (E4M3, NAN, 0x7F),
        (E4M3, -NAN, 0x7F),
        (E4M3, 2.0**-9, 0x01),
        (E4M3, 2.0**-10, 0x00),  # half of the smallest subnormal: a tie, to even
        (E4M3, 1.5 * 2.0**-10, 0x01),
        (E4M3, 1e-40, 0x00),  # an fp32 subnormal
        (E4M3, 1.0625, 0x38),  # tie between 1.0 (0x38) and 1.125 (0x39)
        (E4M3, 1.1875, 0x3A),  # tie between 1.125 (0x39) and 1.25 (0x3A)
        (E4M3, 1.9375, 0x40),  # tie that carries into the exponent
        (E5M2, -0.0, 0x80),
        (E5M2, 1.0, 0x3C),
        (E5M2, 57344.0, 0x7B),
        (E5M2, 61440.0, 0x7B),  # IEEE rounding would overflow to infinity here
        (E5M2, INF, 0x7B),
        (E5M2, -INF, 0xFB),
        (E5M2, NAN, 0x7F),
        (E5M2, -NAN, 0x7F),
        (E5M2, 2.0**-17, 0x00),
        (E5M2, 1.5 * 2.0**-17, 0x01),
    ],
)
def test_encode_examples(fmt: Fp8Format, value: float, byte: int) -> None:
    assert encode_fp8(torch.tensor([value]), fmt).tolist() == [byte]


@pytest.mark.parametrize(("fmt", "torch_dtype"), FORMATS)
def test_decode_agrees_with_torch_for_every_byte(fmt: Fp8Format, torch_dtype: torch.dtype) -> None:
    expected = ALL_BYTES.view(torch_dtype).float()
    torch.testing.assert_close(decode_fp8(ALL_BYTES, fmt), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("fmt", "torch_dtype"), FORMATS)
def test_encode_inverts_decode(fmt: Fp8Format, torch_dtype: torch.dtype) -> None:
    finite = ALL_BYTES[ALL_BYTES.view(torch_dtype).float().isfinite()]
    assert torch.equal(encode_fp8(decode_fp8(finite, fmt), fmt), finite)


@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("fmt", "torch_dtype"), FORMATS)
def test_encode_agrees_with_torch_where_torch_is_one_mind(
    fmt: Fp8Format, torch_dtype: torch.dtype, source: torch.dtype
) -> None:
    """Every 16-bit number up to the largest finite one: beyond it torch's releases differ."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(source).float()
    values = every[every.abs() <= torch.finfo(torch_dtype).max]
    assert torch.equal(encode_fp8(values, fmt), values.to(torch_dtype).view(torch.uint8))


def test_store_divides_truly() -> None:
    """0.1708984375 / 7 is 12.5 subnormal steps, a tie; times fp32(1/7) it lies above the tie."""
    value, scale = torch.tensor([0.1708984375]), torch.tensor(7.0)
    assert encode_fp8(value * (1 / scale), E4M3).tolist() == [13]
    assert store_fp8(value, scale, E4M3).tolist() == [12]


@pytest.mark.parametrize(
    ("scale", "stored"),
    [
        (0.0, [0x7F, 0x7E, 0xFE]),
        (-1.0, [0x80, 0xB8, 0x38]),
        (INF, [0x00, 0x00, 0x80]),
        (NAN, [0x7F, 0x7F, 0x7F]),
    ],
)
def test_store_by_strange_scales(scale: float, stored: list[int]) -> None:
    values = torch.tensor([0.0, 1.0, -1.0])
    assert store_fp8(values, torch.tensor(scale), E4M3).tolist() == stored


@pytest.mark.parametrize(
    ("dtype", "nan_bits"),
    [(torch.float16, 0x7FFF), (torch.bfloat16, 0x7FFF), (torch.float32, 0x7FFFFFFF)],
)
@pytest.mark.parametrize("byte", [0x7F, 0xFF])
def test_load_gives_canonical_nan(byte: int, dtype: torch.dtype, nan_bits: int) -> None:
    loaded = load_fp8(torch.tensor([byte], dtype=torch.uint8), torch.tensor(-0.5), E4M3, dtype)
    assert bits(loaded).tolist() == [nan_bits]


def test_load_rounds_the_product_once() -> None:
    """15 * fp32(0.1) = 1.50000002...: bfloat16 keeps 1.5, float32 its own rounding."""
    byte, scale = torch.tensor([0x57], dtype=torch.uint8), torch.tensor(0.1)
    assert decode_fp8(byte, E4M3).tolist() == [15.0]
    assert load_fp8(byte, scale, E4M3, torch.bfloat16).tolist() == [1.5]
    assert load_fp8(byte, scale, E4M3, torch.float32).tolist() == [(15.0 * scale).item()]


def test_cache_dtype_strings() -> None:
    assert [fp8_format(s) for s in ("auto", "float16", "bfloat16")] == [None] * 3
    assert [fp8_format(s) for s in ("fp8", "fp8_e4m3", "fp8_ds_mla")] == [E4M3] * 3
    assert fp8_format("fp8_e5m2") is E5M2
    with pytest.raises(RuntimeError, match="Unsupported data type of kv cache: int8"):
        fp8_format("int8")


def _nearest_fp32(exact: Fraction) -> float:
    """``exact`` rounded to fp32, ties to even, by comparing neighbours exactly."""
    guess = torch.tensor(float(exact), dtype=torch.float32)
    around = (guess, guess.nextafter(torch.tensor(INF)), guess.nextafter(torch.tensor(-INF)))
    return min(
        around, key=lambda x: (abs(Fraction(x.item()) - exact), x.view(torch.int32).item() & 1)
    ).item()


def test_fma_rounds_once() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 1000, generator=generator)
    c[::2] = -(a * b)[::2] * (1 + 2.0**-20)  # cancellation
    expected = [
        _nearest_fp32(Fraction(x) * Fraction(y) + Fraction(z))
        for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    ]
    assert fma_fp32(a, b, c).tolist() == expected


def test_fma_just_below_a_tie() -> None:
    """The exact sum is 2^-70 below a tie that fp64 cannot tell it from; even would be above."""
    a, b = torch.tensor(2.0**-12 * (1 + 2.0**-23)), torch.tensor(2.0**-12 * (1 - 2.0**-23))
    c = torch.tensor(1 + 2.0**-23)
    assert (a.double() * b.double() + c.double()).float().item() == 1 + 2.0**-22
    assert fma_fp32(a, b, c).item() == c.item()
    assert fma_fp32(-a, b, -c).item() == -c.item()


@pytest.mark.parametrize(
    ("exponent", "ulps_above", "rounded_exponent"),
    [(-3, 0, -3), (-4, 1, -3), (-5, 1, -5), (-5, 2, -4), (-9, 2, -9), (-9, 3, -8), (0, -1, 0)],
)
def test_power_of_two_scale(exponent: int, ulps_above: int, rounded_exponent: int) -> None:
    value = (torch.tensor([2.0**exponent]).view(torch.int32) + ulps_above).view(torch.float32)
    assert round_up_to_power_of_two(value).tolist() == [2.0**rounded_exponent]
