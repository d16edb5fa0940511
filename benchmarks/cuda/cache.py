"""Cache writers as engines call them: prefill into shuffled pages, decode one token a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

import kvops
from harness import DEVICE, Row


@dataclass(frozen=True)
class Case:
    """One call of a writer. `layout`: split (reshape_and_cache), NHD or HND (_flash)."""

    tokens: int
    layout: str
    kind: str = "auto"
    heads: int = 8
    head_size: int = 128
    page: int = 16
    fused_qkv: bool = False
    per_head: bool = False
    decode: bool = False
    prefill_and_decode: bool = False
    packed_pages: bool = False

    @property
    def cache_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.kind == "auto" else torch.uint8

    @property
    def head_bytes(self) -> int:
        """Of one head of one token in the cache."""
        if self.kind == "nvfp4":
            return self.head_size // 2 + self.head_size // 16
        return self.head_size * self.cache_dtype.itemsize

    @property
    def bytes(self) -> int:
        return 2 * self.tokens * self.heads * (2 * self.head_size + self.head_bytes)


def rows() -> Iterator[Row]:
    for tokens, split, flash in ((8192, 0.85, 0.92), (65536, 0.90, 0.95)):
        for page in (16, 32):
            yield row(Case(tokens, "split", page=page), split, 0.13 if page == 16 else None)
        for layout in ("NHD", "HND"):
            yield row(Case(tokens, layout), flash, 0.85 if tokens == 8192 else 0.91)
        yield row(Case(tokens, "split", "fp8"), 0.80, 0.09)
        yield row(Case(tokens, "NHD", "fp8"), 0.80, 0.20)
        yield row(Case(tokens, "NHD", "fp8", per_head=True), 0.80, None)
        yield row(Case(tokens, "HND", "fp8", per_head=True), 0.80, None)
        yield row(Case(tokens, "HND", "nvfp4"), None, None)
    for tokens in (16, 256):
        yield row(Case(tokens, "split", decode=True), 0.85, 0.4)
        yield row(Case(tokens, "NHD", decode=True), 0.85, 0.7)
    yield row(Case(8192, "NHD", fused_qkv=True), 0.85, None)
    yield row(Case(8192, "split", fused_qkv=True), 0.85, None)
    yield row(Case(8192, "split", packed_pages=True), 0.85, None)
    yield row(Case(8192, "NHD", heads=1), 0.85, None)
    yield row(Case(8192, "split", heads=1), 0.85, None)
    yield row(Case(8448, "NHD", prefill_and_decode=True), 0.85, None)
    yield row(Case(8448, "split", prefill_and_decode=True), 0.85, None)
    yield convert_fp8()


def row(case: Case, target: float | None, recorded: float | None) -> Row:
    names = ("fused_qkv", "packed_pages", "per_head", "prefill_and_decode")
    flags = [name for name in names if getattr(case, name)]
    op = "reshape_and_cache" if case.layout == "split" else f"reshape_and_cache_flash {case.layout}"
    shape = f"{case.tokens} tokens, {case.heads} x {case.head_size}, page {case.page}, {case.kind}"
    return Row(", ".join([op, shape, *flags]), case.bytes, lambda: call(case), target, recorded)


def call(c: Case) -> Callable[[], None]:
    key, value = _key_value(c)
    key_cache, value_cache = _caches(c)
    slots = _slots(c)
    scale = torch.ones(c.heads if c.per_head else 1, device=DEVICE)
    write = kvops.reshape_and_cache if c.layout == "split" else kvops.reshape_and_cache_flash
    return lambda: write(key, value, key_cache, value_cache, slots, c.kind, scale, scale)


def convert_fp8() -> Row:
    def make() -> Callable[[], None]:
        source = torch.randn(65536, 1024, device=DEVICE, dtype=torch.bfloat16)
        target = torch.zeros(source.shape, dtype=torch.uint8, device=DEVICE)
        return lambda: kvops.convert_fp8(target, source, 1.0, "fp8")

    return Row("convert_fp8, 65536 x 1024 bfloat16", 65536 * 1024 * 3, make, 0.90)


def _key_value(c: Case) -> list[torch.Tensor]:
    if not c.fused_qkv:
        shape = (c.tokens, c.heads, c.head_size)
        return [torch.randn(shape, device=DEVICE, dtype=torch.bfloat16) for _ in range(2)]
    # 4 query heads for each KV head, in one row with K and V.
    parts = [4 * c.heads * c.head_size, c.heads * c.head_size, c.heads * c.head_size]
    fused = torch.randn(c.tokens, sum(parts), device=DEVICE, dtype=torch.bfloat16)
    return [part.unflatten(1, (c.heads, c.head_size)) for part in fused.split(parts, 1)[1:]]


def _pages(c: Case) -> int:
    return c.tokens if c.decode or c.prefill_and_decode else -(-c.tokens // c.page)


def _caches(c: Case) -> tuple[torch.Tensor, torch.Tensor]:
    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=c.cache_dtype, device=DEVICE)

    pages = _pages(c)
    if c.layout == "split":
        x = 16 // c.cache_dtype.itemsize
        shape = (c.heads, c.head_size, c.page)
        if c.packed_pages:
            keys, values = zeros(pages, 2, *shape).unbind(1)
        else:
            keys, values = zeros(pages, *shape), zeros(pages, *shape)
        return keys.view(pages, c.heads, c.head_size // x, c.page, x), values
    width = c.head_bytes // c.cache_dtype.itemsize
    if c.layout == "NHD":
        both = zeros(pages, 2, c.page, c.heads, width)
    else:
        both = zeros(pages, 2, c.heads, c.page, width).transpose(2, 3)
    return both[:, 0], both[:, 1]


def _slots(c: Case) -> torch.Tensor:
    """Tokens contiguous within pages, pages shuffled; decode: one token a page."""
    torch.manual_seed(0)
    order = torch.randperm(_pages(c))
    if c.decode:
        return (order * c.page + torch.randint(c.page, (c.tokens,))).to(DEVICE)
    prefill = c.tokens - 256 if c.prefill_and_decode else c.tokens
    filled = -(-prefill // c.page)
    slots = (order[:filled, None] * c.page + torch.arange(c.page)).flatten()[:prefill]
    if c.prefill_and_decode:
        decode = order[filled : filled + 256] * c.page + torch.randint(c.page, (256,))
        decode[::16] = -1  # padding
        slots = torch.cat([slots, decode])
    return slots.to(DEVICE)
