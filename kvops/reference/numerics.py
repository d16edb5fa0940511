"""Number formats of the cache: FP8 encoding and decoding, NaN, fused multiply-add.

Every operator that stores or loads FP8 does it by the functions of this file, so they are the
definition of a cache byte. They use fp32 and fp64 arithmetic of PyTorch but never its float8 casts,
whose treatment of overflow and NaN differs between releases.

========  ====  =============  ============  ==================  ==============
format    bias  mantissa bits  largest       smallest subnormal  NaN stored as
========  ====  =============  ============  ==================  ==============
E4M3      7     3              448 (0x7E)    2^-9                0x7F
E5M2      15    2              57344 (0x7B)  2^-16               0x7F
========  ====  =============  ============  ==================  ==============

E4M3 is OCP's e4m3fn (no infinity; 0x7F and 0xFF are NaN), E5M2 has IEEE infinities (0x7C, 0xFC).

Source: vLLM 0.23 ``quant_utils.cuh`` and CUDA's ``__nv_cvt_float_to_fp8`` with ``__NV_SATFINITE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

FLT_MIN = torch.finfo(torch.float32).tiny
FLT_MAX = torch.finfo(torch.float32).max

HIGH_PRECISION_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_SAME_WIDTH_INT = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NAN_BITS = {torch.float16: 0x7FFF, torch.bfloat16: 0x7FFF, torch.float32: 0x7FFFFFFF}
_FP8_NAN_BYTE = 0x7F


@dataclass(frozen=True)
class Fp8Format:
    """An 8-bit floating-point format: sign, exponent, mantissa."""

    name: str
    mantissa_bits: int
    bias: int
    largest_finite_byte: int
    has_infinity: bool

    def value_of_byte(self, byte: int) -> float:
        """The number that a byte stands for, by the definition of the format."""
        sign = -1.0 if byte & 0x80 else 1.0
        magnitude = byte & 0x7F
        if magnitude > self.largest_finite_byte:
            is_infinity = self.has_infinity and magnitude == self.largest_finite_byte + 1
            return sign * float("inf") if is_infinity else float("nan")
        exponent_field = magnitude >> self.mantissa_bits
        fraction = magnitude & ((1 << self.mantissa_bits) - 1)
        if exponent_field > 0:
            fraction += 1 << self.mantissa_bits
        exponent = max(exponent_field, 1) - self.bias - self.mantissa_bits
        return sign * fraction * 2.0**exponent

    def midpoints(self) -> Tensor:
        """float32 [largest_finite_byte]: halfway between each positive byte and the next, exact."""
        values = [self.value_of_byte(byte) for byte in range(self.largest_finite_byte + 1)]
        return torch.tensor([(low + high) / 2 for low, high in pairwise(values)])


# Magnitudes of the 4-bit codes 0 .. 7.
E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

E4M3 = Fp8Format("e4m3", 3, 7, 0x7E, has_infinity=False)
E5M2 = Fp8Format("e5m2", 2, 15, 0x7B, has_infinity=True)


def fp8_format(kv_cache_dtype: str) -> Fp8Format | None:
    """The FP8 format that a ``kv_cache_dtype`` string selects, None for "store as it is".

    "auto", "float16" and "bfloat16" all mean that the cache has the dtype of the input.
    Raises RuntimeError for any other string.
    """
    if kv_cache_dtype in ("auto", "float16", "bfloat16"):
        return None
    if kv_cache_dtype in ("fp8", "fp8_e4m3", "fp8_ds_mla"):
        return E4M3
    if kv_cache_dtype == "fp8_e5m2":
        return E5M2
    raise RuntimeError(f"Unsupported data type of kv cache: {kv_cache_dtype}")


def bits(tensor: Tensor) -> Tensor:
    """A view of ``tensor`` as integers of the same width; copying it copies bits, NaNs included."""
    return tensor.view(_SAME_WIDTH_INT[tensor.element_size()])


def canonical_nan(values: Tensor) -> Tensor:
    """``values`` with every NaN replaced by the one that GPU arithmetic produces.

    That is 0x7FFF for float16 and bfloat16 and 0x7FFFFFFF for float32: positive, quiet, all ones.
    """
    nan = torch.tensor(_NAN_BITS[values.dtype], dtype=_SAME_WIDTH_INT[values.element_size()])
    return torch.where(values.isnan(), nan.to(values.device), bits(values)).view(values.dtype)


def divide(values: Tensor, divisor: Tensor) -> Tensor:
    """``float(values) / divisor``, one IEEE fp32 division per element.

    Both operands are full tensors: for a scalar divisor PyTorch may multiply by the reciprocal.
    """
    values = values.float()
    return values / divisor.to(values).expand(values.shape).contiguous()


def encode_fp8(values: Tensor, fmt: Fp8Format) -> Tensor:
    """fp32 values to FP8 bytes: to the nearest, ties to the even byte, saturating.

    Infinity and overflow become the largest finite number, NaN of either sign becomes 0x7F, and
    zero keeps its sign.

    Args:
        values: float32, any shape.
        fmt: ``E4M3`` or ``E5M2``.

    Returns:
        uint8 of the same shape.
    """
    byte = _nearest(values.abs(), fmt.midpoints()) + 0x80 * torch.signbit(values)
    return torch.where(values.isnan(), _FP8_NAN_BYTE, byte).to(torch.uint8)


def _nearest(magnitudes: Tensor, midpoints: Tensor) -> Tensor:
    """The codes of the nearest values, ties to the even code, given the midpoints between them.

    Codes are in ascending order of value, so the nearest one is the number of midpoints below the
    magnitude. On a midpoint the two counts differ by one, and the even one is taken. No midpoint
    lies above the largest value: overflow ends there.
    """
    midpoints = midpoints.to(magnitudes.device)
    below = torch.bucketize(magnitudes, midpoints, right=False)
    not_above = torch.bucketize(magnitudes, midpoints, right=True)
    return torch.where(below % 2 == 0, below, not_above)


def encode_e2m1(values: Tensor) -> Tensor:
    """fp32 values to the 4-bit codes of ``E2M1_VALUES``: to the nearest, ties to the even code.

    What is too large becomes 6, NaN of either sign becomes +6, and zero keeps its sign (bit 3).

    Returns:
        uint8 of the same shape, 0 .. 15.
    """
    midpoints = torch.tensor([(low + high) / 2 for low, high in pairwise(E2M1_VALUES)])
    code = _nearest(values.abs(), midpoints) + 8 * torch.signbit(values)
    return torch.where(values.isnan(), 7, code).to(torch.uint8)


def decode_e2m1(codes: Tensor) -> Tensor:
    """4-bit codes to the float32 values that they stand for."""
    table = torch.tensor([*E2M1_VALUES, *(-value for value in E2M1_VALUES)])
    return table.to(codes.device)[codes.long()]


def decode_fp8(fp8_bytes: Tensor, fmt: Fp8Format) -> Tensor:
    """FP8 bytes (any 1-byte dtype) to the float32 values that they stand for, exactly."""
    table = torch.tensor([fmt.value_of_byte(byte) for byte in range(256)], dtype=torch.float32)
    return canonical_nan(table).to(fp8_bytes.device)[bits(fp8_bytes).long()]


def store_fp8(values: Tensor, scale: Tensor, fmt: Fp8Format) -> Tensor:
    """Bytes of ``values / scale``: storing divides.

    Args:
        values: float32, float16 or bfloat16, any shape.
        scale: float32, broadcastable to ``values``. Zero, negative, infinite and NaN scales follow
            from IEEE division.
    """
    return encode_fp8(divide(values, scale), fmt)


def load_fp8(fp8_bytes: Tensor, scale: Tensor, fmt: Fp8Format, dtype: torch.dtype) -> Tensor:
    """``byte * scale`` in fp32, rounded to ``dtype`` (nearest even): loading multiplies.

    A NaN of either sign comes out as the canonical NaN of ``dtype``.
    """
    values = decode_fp8(fp8_bytes, fmt)
    return canonical_nan((values * scale.to(values)).to(dtype))


def convert_for_cache(values: Tensor, scale: Tensor, fmt: Fp8Format | None) -> Tensor:
    """What a cache writer stores for ``values``, as integers: bytes of FP8, or their own bits."""
    return bits(values) if fmt is None else store_fp8(values, scale, fmt)


def fma_fp32(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a * b + c`` of float32 tensors with a single rounding.

    The product is exact in fp64. The fp64 sum may not be, and rounding it again to fp32 could then
    round a tie the wrong way; so the sum is first rounded to odd, which leaves the last bit set
    whenever something was lost and makes the second rounding the correct one.
    """
    product, addend = a.double() * b.double(), c.double()
    total = product + addend
    addend_part = total - product
    lost = (product - (total - addend_part)) + (addend - addend_part)
    total_bits = total.view(torch.int64)
    towards_lost = torch.where((lost > 0) == (total > 0), 1, -1)
    is_even = (total_bits & 1) == 0
    inexact = (lost != 0) & total.isfinite()
    odd_bits = torch.where(inexact & is_even, total_bits + towards_lost, total_bits)
    return odd_bits.view(torch.float64).float()
