"""The grids of vLLM's published kernel tests: all of it on a GPU, a part of it on the CPU."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from devices import CUDA

TOKENS, HEADS = 42, 8
DTYPES = (torch.bfloat16, torch.float32)
KINDS = ("auto", "fp8")
# Of dequantised fp8.
FP8_CLOSE = {"atol": 1e-3, "rtol": 0.1}


def grid(*, cpu_every: int, **axes: tuple[Any, ...]) -> pytest.MarkDecorator:
    """Parametrise with `device` and the axes. `cpu_every` is to share no factor with their lengths,
    so that every value occurs on the CPU.
    """
    combinations = list(itertools.product(*axes.values()))
    cuda = CUDA[0]
    chosen = [("cpu", values, ()) for values in combinations[::cpu_every]]
    chosen += [("cuda", values, cuda.marks) for values in combinations]
    params = [
        pytest.param(device, *values, id="-".join([device, *map(_label, values)]), marks=marks)
        for device, values, marks in chosen
    ]
    return pytest.mark.parametrize(["device", *axes], params)


def _label(value: Any) -> str:
    return str(value).removeprefix("torch.").replace(" ", "")


def blocks_on(device: str, blocks: int) -> int:
    """A cache of gigabytes is for GPUs."""
    return blocks if device == "cuda" else min(blocks, 64)


def uniform(*shape: int, bound: float, dtype: torch.dtype, device: str) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=device).uniform_(-bound, bound)


def as_fp8(tensor: Tensor, scale: float = 1.0) -> Tensor:
    stored = torch.empty_like(tensor, dtype=torch.uint8)
    torch.ops._C_cache_ops.convert_fp8(stored, tensor, scale, "fp8")
    return stored


def from_fp8(stored: Tensor, scale: float = 1.0, dtype: torch.dtype = torch.float16) -> Tensor:
    tensor = torch.empty_like(stored, dtype=dtype)
    torch.ops._C_cache_ops.convert_fp8(tensor, stored, scale, "fp8")
    return tensor


def random_cache(*shape: int, head_size: int, dtype: torch.dtype, kind: str, device: str) -> Tensor:
    """What vLLM's fixtures fill a cache with."""
    filled_as = torch.float16 if kind == "fp8" else dtype
    cache = uniform(*shape, bound=head_size**-0.5, dtype=filled_as, device=device)
    return as_fp8(cache) if kind == "fp8" else cache


def distinct(count: int, below: int, device: str) -> Tensor:
    """int64 [count]: distinct random numbers."""
    return torch.randperm(below)[:count].to(device)


def scale_of(values: Tensor) -> Tensor:
    """The tests' fp8 scale: 0-D."""
    return (values.abs().amax() / 64.0).float()
