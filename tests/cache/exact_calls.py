"""Calls whose results are the same bytes at every SIMD level, as digests.

Run as a program, prints the digests of the operators at the level that ``KVOPS_SIMD`` asks for.
Inputs are every bit pattern of the 16-bit formats and of FP8, random bit patterns of float32, and
for float32 the numbers around every rounding boundary of FP8.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from cache.inputs import WRITER_DTYPES, poisoned
from kvops.reference.numerics import E4M3, E5M2

Operator = Callable[..., None]
_Call = tuple[str, str, tuple[Any, ...], tuple[Tensor, ...]]

# What is stored is divided by it, what is loaded multiplied: exact, inexact, subnormal and
# overflowing results, and odd ones.
_SCALES = (1.0, 0.1, -2.0, 3e38, 1e-38, 1e-44, 0.0, float("inf"), float("nan"))
_COLUMNS = 512
# No multiple of any vector: edges of every transposition and row.
_ODD_HEAD_SIZE = 77


def digests(operators: Mapping[str, Operator]) -> dict[str, str]:
    """SHA-256 of every tensor that each call writes, by the name of the call."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for calls in (_conversions, _pages, _nvfp4_pages):
        for name, operator, args, outputs in calls(generator):
            operators[operator](*args)
            content = b"".join(t.view(torch.uint8).numpy().tobytes() for t in outputs)
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def _values(dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """[rows, _COLUMNS]: every value of a 16-bit dtype; for float32 see the top of the file."""
    if dtype != torch.float32:
        bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
        return bits.view(dtype).view(-1, _COLUMNS)
    random_bits = torch.randint(-(2**31), 2**31, [2**16], generator=generator)
    found = [random_bits.to(torch.int32).view(torch.float32)]
    for fmt, scale in product((E4M3, E5M2), (1.0, 0.1)):
        boundary = fmt.midpoints() * torch.tensor(scale)
        for towards in (-torch.inf, torch.inf):
            near = torch.nextafter(boundary, torch.tensor(towards))
            found += [boundary, near, -near, torch.nextafter(near, torch.tensor(towards))]
    values = torch.cat(found)
    return torch.nn.functional.pad(values, [0, -len(values) % _COLUMNS]).view(-1, _COLUMNS)


def _conversions(generator: torch.Generator) -> Iterator[_Call]:
    for dtype, scale in product(WRITER_DTYPES, _SCALES):
        values = _values(dtype, generator)
        stored = poisoned(values.shape, torch.uint8)
        yield f"store-{dtype}-{scale}", "convert_fp8", (stored, values, scale, "fp8"), (stored,)
        every_byte = torch.arange(256 + 31).to(torch.uint8)
        loaded = poisoned(every_byte.shape, dtype)
        yield f"load-{dtype}-{scale}", "convert_fp8", (loaded, every_byte, scale, "fp8"), (loaded,)


def _pages(generator: torch.Generator) -> Iterator[_Call]:
    for dtype, kind in product(WRITER_DTYPES, ("auto", "fp8", "fp8_e5m2")):
        values = _values(dtype, generator).flatten()
        tokens = len(values) // (2 * _ODD_HEAD_SIZE)
        rows = values[: tokens * 2 * _ODD_HEAD_SIZE].view(tokens, 2, _ODD_HEAD_SIZE)
        stored = dtype if kind == "auto" else torch.uint8
        for block_size in (13, 16, 64):
            blocks = tokens // block_size + 2
            slots = torch.arange(5, 5 + tokens)
            heads = [2, _ODD_HEAD_SIZE]
            paged = (
                poisoned([blocks, *heads, block_size, 1], stored),
                poisoned([blocks, *heads, block_size], stored),
            )
            flash = (
                poisoned([blocks, block_size, *heads], stored),
                poisoned([blocks, block_size, *heads], stored),
            )
            for operator, caches in (
                ("reshape_and_cache", paged),
                ("reshape_and_cache_flash", flash),
            ):
                scales = torch.tensor(0.1), torch.tensor(3.7)
                args = (rows, rows.flip(0), *caches, slots, kind, *scales)
                yield f"{operator}-{dtype}-{kind}-{block_size}", operator, args, caches


def _nvfp4_pages(generator: torch.Generator) -> Iterator[_Call]:
    """Every value of the 16-bit dtypes in groups of their like and of everything, any scale."""
    for dtype, scale in product(WRITER_DTYPES, (*_SCALES, 448.0)):
        values = _values(dtype, generator).flatten()
        mixed = values[torch.randperm(len(values), generator=generator)]
        # The code of every number around every rounding boundary, under every group scale.
        tame = torch.randn(len(values), generator=generator).to(dtype)
        tame[::16] = 6 * 2.0 ** torch.randint(-14, 9, [len(tame[::16])], generator=generator)
        rows = torch.cat([values, mixed, tame])
        rows = rows[: len(rows) // 192 * 192].view(-1, 1, 192)
        blocks = len(rows) // 16 + 1
        caches = [poisoned([blocks, 16, 1, 108], torch.uint8) for _ in range(2)]
        args = (rows, rows.flip(0), *caches, torch.arange(len(rows)), "nvfp4_linear")
        scales = torch.tensor(scale), torch.tensor(scale)
        yield f"nvfp4-{dtype}-{scale}", "reshape_and_cache_flash", (*args, *scales), tuple(caches)


if __name__ == "__main__":
    import kvops

    operators = {name: getattr(kvops, name) for name in kvops.__all__}
    print(json.dumps({"simd": kvops.info()["simd"], "digests": digests(operators)}))
