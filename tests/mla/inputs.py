"""What the cases and tests of the MLA operators share: slots, poisoned caches, awkward numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from registry import Args

_POISON_BYTE = 0x7F


def distinct_slots(
    tokens: int, num_slots: int, generator: torch.Generator, padding: Sequence[int] = ()
) -> Tensor:
    """int64 [tokens]: random slots, no two alike; -1 at the places in `padding`."""
    slots = torch.randperm(num_slots, generator=generator)[:tokens]
    slots[list(padding)] = -1
    return slots


def poisoned(*shape: int, dtype: torch.dtype) -> Tensor:
    """NaN in every format but E5M2 and the integers; there, too, a byte that no test writes."""
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
