"""Calls whose results are the same bytes at every SIMD level, as digests.

Run as a program, prints the digests of the operators at the level that ``KVOPS_SIMD`` asks for.
Inputs are every bit pattern of the 16-bit formats, random bit patterns of float32, and numbers
that are hard to round; widths leave remainders of every vector length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mla.inputs import every_bit_pattern, poisoned

Operator = Callable[..., None]
# What an entry is divided by: exact, inexact, subnormal quotients, overflow, odd ones.
_SCALES = (1.0, 0.1, 3e38, 1e-38, 0.0, -2.0, float("inf"), float("nan"))


def digests(operators: Mapping[str, Operator]) -> dict[str, str]:
    """SHA-256 of every tensor that each call writes, by the name of the call."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for calls in (_entries, _ds_mla_entries, _indexer_rows, _rotations):
        for name, operator, args, outputs in calls(generator):
            operators[operator](*args)
            content = b"".join(t.view(torch.uint8).numpy().tobytes() for t in outputs)
            found[name] = hashlib.sha256(content).hexdigest()
    return found


_Call = tuple[str, str, tuple[Any, ...], tuple[Tensor, ...]]


def _values(dtype: torch.dtype, columns: int, generator: torch.Generator) -> Tensor:
    """[rows, columns]: every value of a 16-bit dtype, or 65536 random bit patterns of float32."""
    if dtype != torch.float32:
        return every_bit_pattern(dtype, columns)
    bits = torch.randint(-(2**31), 2**31, [2**16 // columns, columns], generator=generator)
    return bits.to(torch.int32).view(torch.float32)


def _entries(generator: torch.Generator) -> Iterator[_Call]:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        kv_c = _values(dtype, 512, generator)
        for kind in ("auto", "fp8", "fp8_e5m2"):
            for scale in _SCALES:
                tokens, k_pe = kv_c.size(0), kv_c.flip(1)[:, :45]
                cache_dtype = dtype if kind == "auto" else torch.uint8
                cache = poisoned(tokens // 16, 16, 512 + 45, dtype=cache_dtype)
                args = (kv_c, k_pe, cache, torch.arange(tokens), kind, torch.tensor(scale))
                yield f"entries-{dtype}-{kind}-{scale}", "concat_and_cache_mla", args, (cache,)


def _ds_mla_entries(generator: torch.Generator) -> Iterator[_Call]:
    # Small and large tiles, so that scales of every size meet every value.
    values = _tiles(generator).view(-1, 512)
    slots = torch.arange(values.size(0))
    for kind in ("fp8_ds_mla", "fp8_ds_mla_pow2"):
        cache = poisoned(values.size(0), 1, 656, dtype=torch.uint8)
        args = (values, values[:, :64], cache, slots, kind, torch.ones(1))
        yield kind, "concat_and_cache_mla", args, (cache,)


def _indexer_rows(generator: torch.Generator) -> Iterator[_Call]:
    for scale_format in ("ue8m0", "auto"):
        k = _tiles(generator).view(-1, 4096)
        cache = poisoned(k.size(0) // 8, 8, 4096 + 128, dtype=torch.uint8)
        args = (k, cache, torch.arange(k.size(0)), 128, scale_format)
        yield f"indexer-{scale_format}", "indexer_k_quant_and_cache", args, (cache,)


def _tiles(generator: torch.Generator) -> Tensor:
    """bfloat16 [32768, 128]: a tile for every magnitude, NaN too, that is the largest in it."""
    magnitudes = torch.arange(2**15, dtype=torch.int16).view(torch.bfloat16)
    fractions = 2 * torch.rand(len(magnitudes), 128, generator=generator) - 1
    fractions.scatter_(1, torch.randint(128, [len(magnitudes), 1], generator=generator), 1.0)
    tiles = (magnitudes.float().unsqueeze(1) * fractions).bfloat16()
    return tiles[torch.randperm(len(tiles), generator=generator)]


def _rotations(generator: torch.Generator) -> Iterator[_Call]:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for is_neox in (True, False):
            for rot in (64, 90):
                name = f"rotation-{dtype}-{is_neox}-{rot}"
                args = _rotation(dtype, is_neox, rot, generator)
                yield name, "concat_and_cache_mla_rope_fused", args, (args[1], args[2], args[7])


def _rotation(
    dtype: torch.dtype, is_neox: bool, rot: int, generator: torch.Generator
) -> tuple[Any, ...]:
    tokens, heads = 16, 64
    rows = _values(dtype, 64, generator)
    rows = rows[torch.randperm(len(rows), generator=generator)].flatten()[: tokens * heads * rot]
    q_pe = rows.repeat(-(-tokens * heads * rot // rows.numel()))[: tokens * heads * rot]
    angles = torch.rand(tokens, rot // 2, generator=generator) * 7
    table = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
    # One row of the table is anything at all: both products may be inexact, huge or tiny.
    table[0] = rows[:rot]
    k_pe = torch.randn(tokens, rot, generator=generator).to(dtype)
    kv_c = torch.randn(tokens, 33, generator=generator).to(dtype)
    cache = poisoned(2, 8, 33 + rot, dtype=dtype)
    slots, positions = torch.arange(tokens), torch.arange(tokens)
    q_pe = q_pe.view(tokens, heads, rot).clone()
    one = torch.ones(1)
    return positions, q_pe, k_pe, kv_c, table, is_neox, slots, cache, "auto", one


if __name__ == "__main__":
    import kvops

    operators = {name: getattr(kvops, name) for name in kvops.__all__}
    print(json.dumps({"simd": kvops.info()["simd"], "digests": digests(operators)}))
