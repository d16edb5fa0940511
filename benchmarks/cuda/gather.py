"""Gathers of paged caches into dense rows; pages are shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

import kvops
from harness import DEVICE, Row

WIDTH = 576
BF16 = torch.bfloat16


def rows() -> Iterator[Row]:
    mixed = _mixed_lengths(200)
    for lengths, name, target, recorded in (
        ([8192] * 16, "16 x 8k", 0.95, 0.91),
        ([65536], "1 x 64k", 0.95, 0.84),
        (mixed, "200 x 30 to 6000", 0.90, None),
        ([16] * 16, "16 x 16", 0.75, None),
    ):
        for kind in ("auto", "fp8"):
            yield _dequant(Batch(lengths), kind, name, target, recorded)
        yield _copy(Batch(lengths), name, target, recorded)
    for page in (16, 64):
        batch, name = Batch(mixed, page, starts=True), f"200 x 30 to 6000, page {page}, starts"
        for kind in ("auto", "fp8"):
            yield _dequant(batch, kind, name, 0.90, None)
        yield _copy(batch, name, 0.90, None)
    for lengths, name, target in (([8192] * 16, "16 x 8k", 0.90), ([16] * 16, "16 x 16", 0.75)):
        yield _upconvert(Batch(lengths, page=64), name, target)
        yield _indexer(Batch(lengths, page=64), name, target)


@dataclass(frozen=True)
class Batch:
    """Requests of these lengths; `starts`: each begins inside a page."""

    lengths: Sequence[int]
    page: int = 16
    starts: bool = False

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def tables(self) -> dict[str, torch.Tensor | int | None]:
        first = [i % self.page if self.starts else 0 for i in range(len(self.lengths))]
        blocks = [-(-(n + s) // self.page) for n, s in zip(self.lengths, first, strict=True)]
        order = torch.randperm(sum(blocks), dtype=torch.int32)
        table = torch.zeros(len(blocks), max(blocks), dtype=torch.int32)
        for line, part in zip(table, order.split(blocks), strict=True):
            line[: len(part)] = part
        lengths = torch.tensor(self.lengths)
        cumulative = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).int()
        starts = torch.tensor(first, dtype=torch.int32, device=DEVICE) if self.starts else None
        return {
            "blocks": sum(blocks),
            "table": table.to(DEVICE),
            "cumulative": cumulative.to(DEVICE),
            "lengths": lengths.int().to(DEVICE),
            "request": torch.arange(len(blocks)).repeat_interleave(lengths).int().to(DEVICE),
            "starts": starts,
        }


def _cache(blocks: int, batch: Batch, width: int, dtype: torch.dtype) -> torch.Tensor:
    size = (blocks, batch.page, width)
    if dtype == torch.uint8:
        return torch.randint(0, 64, size, dtype=dtype, device=DEVICE)
    return torch.randn(size, dtype=dtype, device=DEVICE)


def _dequant(batch: Batch, kind: str, name: str, target: float, recorded: float | None) -> Row:
    dtype = BF16 if kind == "auto" else torch.uint8

    def make() -> Callable[[], None]:
        t = batch.tables()
        src = _cache(t["blocks"], batch, WIDTH, dtype)
        dst = torch.empty(batch.tokens, WIDTH, dtype=BF16, device=DEVICE)
        one = torch.ones(1, device=DEVICE)
        tables = t["table"], t["cumulative"], t["request"]
        return lambda: kvops.gather_and_maybe_dequant_cache(
            src, dst, *tables, batch.tokens, kind, one, t["starts"]
        )

    moved = batch.tokens * WIDTH * (dtype.itemsize + 2)
    title = f"gather_and_maybe_dequant_cache, {name}, {kind}"
    return Row(title, moved, make, target, recorded)


def _copy(batch: Batch, name: str, target: float, recorded: float | None) -> Row:
    def make() -> Callable[[], None]:
        t = batch.tables()
        src = _cache(t["blocks"], batch, WIDTH, BF16)
        dst = torch.empty(batch.tokens, WIDTH, dtype=BF16, device=DEVICE)
        requests = len(batch.lengths)
        return lambda: kvops.cp_gather_cache(
            src, dst, t["table"], t["cumulative"], requests, t["starts"]
        )

    moved = batch.tokens * WIDTH * 4
    return Row(f"cp_gather_cache, {name}", moved, make, target, recorded)


def _upconvert(batch: Batch, name: str, target: float) -> Row:
    def make() -> Callable[[], None]:
        t = batch.tables()
        src = _cache(t["blocks"], batch, 656, torch.uint8)
        dst = torch.empty(batch.tokens, WIDTH, dtype=BF16, device=DEVICE)
        requests = len(batch.lengths)
        return lambda: kvops.cp_gather_and_upconvert_fp8_kv_cache(
            src, dst, t["table"], t["lengths"], t["cumulative"][:-1], requests
        )

    moved = batch.tokens * (656 + 2 * WIDTH)
    return Row(f"cp_gather_and_upconvert_fp8_kv_cache, {name}", moved, make, target)


def _indexer(batch: Batch, name: str, target: float) -> Row:
    def make() -> Callable[[], None]:
        t = batch.tables()
        src = _cache(t["blocks"], batch, 132, torch.uint8)
        values = torch.empty(batch.tokens, 128, dtype=torch.uint8, device=DEVICE)
        scales = torch.empty(batch.tokens, 4, dtype=torch.uint8, device=DEVICE)
        return lambda: kvops.cp_gather_indexer_k_quant_cache(
            src, values, scales, t["table"], t["cumulative"]
        )

    moved = batch.tokens * 2 * 132
    return Row(f"cp_gather_indexer_k_quant_cache, {name}", moved, make, target)


def _mixed_lengths(count: int) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(30, 6001, (count,), generator=generator).tolist()
