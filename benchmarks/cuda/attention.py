"""Paged attention: decode batches as engines run them; the K and V bytes are what must move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

import kvops
from harness import DEVICE, Row

LONG = 131072


@dataclass(frozen=True)
class Case:
    """One decode batch. `max_seq_len` is what the caller knows; None: the longest length."""

    lengths: Sequence[int]
    heads: int = 32
    kv_heads: int = 8
    head_size: int = 128
    page: int = 16
    dtype: torch.dtype = torch.bfloat16
    kind: str = "auto"
    alibi: bool = False
    max_seq_len: int | None = None
    version: int = 2

    @property
    def cache_dtype(self) -> torch.dtype:
        return self.dtype if self.kind == "auto" else torch.uint8

    @property
    def bytes(self) -> int:
        return 2 * sum(self.lengths) * self.kv_heads * self.head_size * self.cache_dtype.itemsize


def rows() -> Iterator[Row]:
    for name, case, target, recorded in cases():
        yield Row(name, case.bytes, partial(call, case), target, recorded)


def cases() -> Iterator[tuple[str, Case, float | None, float | None]]:
    """The cases of docs/performance.md in its order: name, batch, target and best recorded A."""
    for kv in ((32, 8), (64, 8)):
        h = dict(heads=kv[0], kv_heads=kv[1])
        label = f"{kv[0]}/{kv[1]}"
        yield f"64 x 8k, {label}", Case([8192] * 64, **h), 1.0, 1.04
        yield f"256 x 1k, {label}", Case([1024] * 256, **h), 0.95, 0.92
        yield f"64 x 2k, {label}", Case([2048] * 64, **h), 0.95, 0.91
        yield f"1 x 128k, {label}", Case([LONG], **h), 0.95, 0.90
        yield f"8 x 8k, {label}", Case([8192] * 8, **h), 0.92, 0.84
        yield f"1 x 8k, {label}", Case([8192], **h), 0.80, 0.54
    yield "1 x 1k, 32/8", Case([1024]), None, 0.40
    yield "8 x 8k, 32/32", Case([8192] * 8, kv_heads=32), 1.0, 1.01
    yield "64 x 2k, 32/32", Case([2048] * 64, kv_heads=32), 1.0, 1.02
    yield "64 x 8k, 32/8, fp16", Case([8192] * 64, dtype=torch.float16), 1.0, 1.01
    yield "64 x 8k, 32/8, v1", Case([8192] * 64, version=1), 1.0, None
    yield "1 x 8k, 32/8, v1", Case([8192], version=1), 0.80, None
    for heads in (4, 8, 16):
        rank = dict(heads=heads, kv_heads=1)
        yield f"8 x 8k, {heads}/1", Case([8192] * 8, **rank), 0.80, 0.53
        yield f"64 x 2k, {heads}/1", Case([2048] * 64, **rank), 0.80, 0.60
    yield "64 x 8k, 32/8, fp8 cache", Case([8192] * 64, kind="fp8"), 0.90, 0.68
    yield "8 x 8k, 32/8, fp8 cache", Case([8192] * 8, kind="fp8"), 0.80, 0.57
    yield "ragged, 128 to 32k, 32/8", Case(_log_normal(128)), 0.95, 0.95
    yield "1 x 128k with 255 x 500, 32/8", Case([LONG] + [500] * 255), 0.95, 0.95
    yield "512 x 300, 32/8", Case([300] * 512), 0.85, 0.77
    for page in (8, 32, 64, 128):
        yield f"64 x 4k, 32/8, page {page}", Case([4096] * 64, page=page), 0.92, 1.05
    for heads, kv in ((8, 8), (16, 8), (20, 4), (28, 4), (64, 4)):
        case = Case([4096] * 64, heads=heads, kv_heads=kv)
        yield f"64 x 4k, {heads}/{kv}", case, 0.92, None
    for size in (64, 256):
        case = Case([4096] * 64, heads=32 if size == 64 else 16, head_size=size)
        yield f"64 x 4k, D {size}", case, 0.92, 0.87 if size == 64 else 1.03
    for size in (80, 96, 112, 120, 192):
        yield f"64 x 4k, D {size}", Case([4096] * 64, head_size=size), 0.85, None
    yield "64 x 2k, 32/8, ALiBi", Case([2048] * 64, alibi=True), 0.75, None
    yield "64 x 2k, 32/8, fp32", Case([2048] * 64, dtype=torch.float32), 0.75, None
    for lengths, name in (([2048] * 64, "64 x 2k"), ([8192], "1 x 8k")):
        yield f"{name}, 32/8, max_seq_len {LONG}", Case(lengths, max_seq_len=LONG), None, None


@dataclass(frozen=True)
class Batch:
    """What the call of a case reads."""

    case: Case
    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    tables: torch.Tensor
    lengths: torch.Tensor


def call(case: Case) -> Callable[[], torch.Tensor]:
    return attend(draw(case))


def draw(c: Case) -> Batch:
    """A batch of random numbers whose pages lie in random order."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    blocks = [-(-length // c.page) for length in c.lengths]
    x = 16 // c.cache_dtype.itemsize

    def random(*shape: int) -> torch.Tensor:
        if c.cache_dtype == torch.uint8:
            # No NaN: the upper exponent bit stays clear.
            return torch.randint(
                0, 64, shape, dtype=torch.uint8, device=DEVICE, generator=generator
            )
        return torch.randn(shape, dtype=c.dtype, device=DEVICE, generator=generator)

    keys = random(sum(blocks), c.kv_heads, c.head_size // x, c.page, x)
    values = random(sum(blocks), c.kv_heads, c.head_size, c.page)
    longest = c.max_seq_len or max(c.lengths)
    tables = torch.zeros(len(c.lengths), -(-longest // c.page), dtype=torch.int32)
    order = torch.randperm(sum(blocks), dtype=torch.int32)
    for table, part in zip(tables, order.split(blocks), strict=True):
        table[: len(part)] = part
    shape = (len(c.lengths), c.heads, c.head_size)
    query = torch.randn(shape, dtype=c.dtype, device=DEVICE, generator=generator)
    lengths = torch.tensor(c.lengths, dtype=torch.int32, device=DEVICE)
    return Batch(c, query, keys, values, tables.to(DEVICE), lengths)


def attend(batch: Batch) -> Callable[[], torch.Tensor]:
    """The call of kvops, which returns where it wrote."""
    c, out = batch.case, torch.empty_like(batch.query)
    max_seq_len = c.max_seq_len or max(c.lengths)
    parts = (*batch.query.shape[:2], -(-max_seq_len // 512))
    scratch = (
        torch.empty(parts, device=DEVICE),
        torch.empty(parts, device=DEVICE),
        torch.empty(*parts, c.head_size, dtype=c.dtype, device=DEVICE),
    )
    one = torch.ones(1, device=DEVICE)
    slopes = torch.rand(c.heads, device=DEVICE) * -0.01 if c.alibi else None
    arguments = (
        *(out, *(scratch if c.version == 2 else ()), batch.query, batch.keys, batch.values),
        *(c.kv_heads, c.head_size**-0.5, batch.tables, batch.lengths, c.page, max_seq_len),
        *(slopes, c.kind, one, one, 0, 0, 0, 64, 0),
    )
    version = kvops.paged_attention_v1 if c.version == 1 else kvops.paged_attention_v2

    def run() -> torch.Tensor:
        version(*arguments)
        return out

    return run


def _log_normal(count: int) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.exp(torch.randn(count, generator=generator) * 1.0 + 8.0)
    return lengths.clamp(1, 32768).int().tolist()
