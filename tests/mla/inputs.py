"""What the cases and tests of the MLA operators share: slots, poisoned caches, awkward numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from registry import Args

_POISON_BYTE = 0xFF  # a NaN in every floating-point format


def distinct_slots(
    tokens: int, num_slots: int, generator: torch.Generator, padding: Sequence[int] = ()
) -> Tensor:
    """int64 [tokens]: random slots, no two alike; -1 at the places in `padding`."""
    slots = torch.randperm(num_slots, generator=generator)[:tokens]
    slots[list(padding)] = -1
    return slots


def poisoned(*shape: int, dtype: torch.dtype) -> Tensor:
    """A tensor that shows where nothing was written: NaN, or bytes 0xFF."""
    size_bytes = math.prod(shape) * dtype.itemsize
    return torch.full([size_bytes], _POISON_BYTE, dtype=torch.uint8).view(dtype).reshape(shape)


def awkward(*shape: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Normally distributed, but one in eight is a NaN, infinity, zero, subnormal or huge."""
    limits = torch.finfo(dtype)
    magnitudes = [math.nan, math.inf, 0.0, limits.max, limits.tiny, limits.tiny / 64]
    specials = torch.tensor([sign * value for sign in (1, -1) for value in magnitudes], dtype=dtype)
    values = torch.randn(shape, generator=generator).to(dtype)
    chosen = specials[torch.randint(len(specials), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.125, chosen, values)


def widened(tensor: Tensor, extra: int) -> Tensor:
    """The same elements in rows that are `extra` elements apart from each other."""
    padded = torch.nn.functional.pad(tensor, [0, extra])
    return padded[..., : tensor.size(-1)]


def transposed(tensor: Tensor) -> Tensor:
    """The same elements, with the last two dimensions laid out the other way round."""
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def replace(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Args], None]:
    """For a `Refusal`: an edit of one argument."""

    def edit(args: Args) -> None:
        args[name] = change(args[name])

    return edit


def set_to(**values: object) -> Callable[[Args], None]:
    """For a `Refusal`: other values for some arguments."""
    return lambda args: args.update(values)


def freed(tensor: Tensor) -> Tensor:
    """The tensor after its storage has been freed."""
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


def every_bit_pattern(dtype: torch.dtype, columns: int) -> Tensor:
    """[65536 / columns, columns]: each value of a 16-bit dtype once, NaNs and all."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    return patterns.view(dtype).view(-1, columns)


def far_apart(values: Tensor) -> Tensor:
    """A copy with more than 2^31 elements between the entries of its first dimension.

    Of the gigabytes that it spans, only the touched pages ever get memory.
    """
    stride = 2**31 + 24
    span = stride * (values.size(0) - 1) + values[0].numel()
    strides = (stride, *values[0].contiguous().stride())
    copy = torch.empty(span, dtype=values.dtype).as_strided(values.size(), strides)
    return copy.copy_(values)


def as_bytes(tensor: Tensor) -> Tensor:
    """uint8: the bytes of a tensor, dense; the last dimension holds those of its elements."""
    return tensor.contiguous().view(torch.uint8)
