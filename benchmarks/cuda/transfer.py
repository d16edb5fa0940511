"""Transfers between pinned host pools and the GPU beside a loop of `copy_` and the pinned link.

    python benchmarks/cuda/transfer.py [--name cuda-transfer] [--commit HASH] [--tokens 8192]

32 layers, pages of 64 tokens that lie anywhere in both pools. Wall clock to completion, medians; L
is the fraction of the rate of one 1 GiB pinned copy, measured in the same run. The loop does one
`copy_` for each run of tokens and layer, as SGLang's fallback does. Writes
benchmarks/results/<name>.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import kvops
from harness import DEVICE, RESULTS, provenance
from swap import link_rates, seconds

LAYERS, PAGE = 32, 64
MHA_ITEM_BYTES = (128, 512, 1024, 2048, 4096)
MLA_ITEM_BYTES = 576 * 2
DIRECTIONS = ("H2D", "D2H")


@dataclass(frozen=True)
class Case:
    tokens: int
    item_bytes: int
    parts: int  # 2: K and V, 1: an MLA cache

    @property
    def bytes(self) -> int:
        return self.tokens * self.item_bytes * self.parts * LAYERS

    @property
    def target(self) -> float | None:
        """Of L."""
        if self.parts == 1:
            return 0.6
        return 0.85 if self.item_bytes >= 2048 else {128: 0.3}.get(self.item_bytes)

    def __str__(self) -> str:
        kind = "MHA" if self.parts == 2 else "MLA"
        return f"{self.tokens >> 10}k x {self.item_bytes} B {kind}"


class Pools:
    """Both pools of a case, as views of one pinned and one device buffer."""

    def __init__(self, case: Case, host: Tensor, device: Tensor) -> None:
        self.case = case
        self.on_host, self.on_device = host[: case.bytes], device[: case.bytes]
        order = torch.Generator().manual_seed(0)
        offsets = torch.arange(PAGE)
        self.host_tokens, self.device_tokens = (
            (
                torch.randperm(case.tokens // PAGE, generator=order)[:, None] * PAGE + offsets
            ).flatten()
            for _ in range(2)
        )

    def layers(self, buffer: Tensor) -> Tensor:
        """[parts, layers, tokens, item]"""
        return buffer.view(self.case.parts, LAYERS, self.case.tokens, self.case.item_bytes)

    def tokens_first(self) -> Tensor:
        """[parts, tokens, layers, item], on the host"""
        return self.on_host.view(self.case.parts, self.case.tokens, LAYERS, self.case.item_bytes)

    def pages_first(self) -> Tensor:
        """[parts, pages, layers, page, item], on the host"""
        pages = self.case.tokens // PAGE
        return self.on_host.view(self.case.parts, pages, LAYERS, PAGE, self.case.item_bytes)

    def indices(self, direction: str) -> tuple[Tensor, Tensor]:
        pair = self.host_tokens, self.device_tokens
        return pair if direction == "H2D" else pair[::-1]


def _tables(pools: Tensor) -> list[Tensor]:
    return [
        torch.tensor([layer.data_ptr() for layer in part], dtype=torch.uint64).to(DEVICE)
        for part in pools
    ]


def _interleaved(sources: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
    return [t for pair in zip(sources, targets, strict=True) for t in pair]


def kernel_layer_first(pools: Pools, direction: str) -> Callable[[], object]:
    sides = pools.layers(pools.on_host), pools.layers(pools.on_device)
    src, dst = sides if direction == "H2D" else sides[::-1]
    tables = _interleaved(_tables(src), _tables(dst))
    indices = [index.to(DEVICE) for index in pools.indices(direction)]
    mla = pools.case.parts == 1
    operator = kvops.transfer_kv_all_layer_mla if mla else kvops.transfer_kv_all_layer
    return lambda: operator(*tables, *indices, pools.case.item_bytes, LAYERS)


def kernel_page_first(pools: Pools, direction: str) -> Callable[[], object]:
    case, mla = pools.case, pools.case.parts == 1
    host, device = pools.tokens_first(), pools.layers(pools.on_device)
    indices = [index.to(DEVICE) for index in pools.indices(direction)]
    dim = case.item_bytes * LAYERS
    if direction == "D2H":
        operator = (
            kvops.transfer_kv_all_layer_mla_lf_pf if mla else kvops.transfer_kv_all_layer_lf_pf
        )
        tensors = _interleaved(_tables(device), list(host))
        return lambda: operator(*tensors, *indices, case.item_bytes, dim, LAYERS)
    per_layer = kvops.transfer_kv_per_layer_mla_pf_lf if mla else kvops.transfer_kv_per_layer_pf_lf
    calls = [_interleaved(list(host), list(device[:, layer])) for layer in range(LAYERS)]

    def run() -> None:
        for layer, tensors in enumerate(calls):
            per_layer(*tensors, *indices, layer, case.item_bytes, dim)

    return run


def direct_layer_first(pools: Pools, direction: str) -> Callable[[], object]:
    sides = pools.layers(pools.on_host), pools.layers(pools.on_device)
    src, dst = (list(side.flatten(0, 1)) for side in (sides if direction == "H2D" else sides[::-1]))
    indices = pools.indices(direction)
    return lambda: kvops.transfer_kv_direct(src, dst, *indices, PAGE)


def direct_page_first(pools: Pools, direction: str) -> Callable[[], object]:
    host, device = list(pools.pages_first()), pools.layers(pools.on_device)
    indices = pools.indices(direction)
    if direction == "D2H":
        layers = list(device.flatten(0, 1))
        return lambda: kvops.transfer_kv_all_layer_direct_lf_pf(layers, host, *indices, PAGE)
    calls = [list(device[:, layer]) for layer in range(LAYERS)]

    def run() -> None:
        for layer, targets in enumerate(calls):
            kvops.transfer_kv_per_layer_direct_pf_lf(host, targets, *indices, layer, PAGE)

    return run


def loop_of_copies(pools: Pools, direction: str) -> Callable[[], object]:
    """One copy for each page of each layer, layer first on both sides."""
    sides = pools.layers(pools.on_host), pools.layers(pools.on_device)
    src, dst = (list(side.flatten(0, 1)) for side in (sides if direction == "H2D" else sides[::-1]))
    starts = [index[::PAGE].tolist() for index in pools.indices(direction)]

    def run() -> None:
        for s, d in zip(*starts, strict=True):
            for source, target in zip(src, dst, strict=True):
                target[d : d + PAGE].copy_(source[s : s + PAGE], non_blocking=True)

    return run


FORMS = {
    "kernel, layer first": kernel_layer_first,
    "kernel, page first": kernel_page_first,
    "direct, layer first": direct_layer_first,
    "direct, page first": direct_page_first,
}


def measure(case: Case, host: Tensor, device: Tensor, link: dict[str, float]) -> list[dict]:
    pools, rows = Pools(case, host, device), []
    for direction in DIRECTIONS:
        with torch.cuda.stream(torch.cuda.Stream()):
            loop = seconds(loop_of_copies(pools, direction), 1)
            for form, make in FORMS.items():
                taken = seconds(make(pools, direction), 5 if case.bytes < 2**31 else 2)
                rate = case.bytes / taken / 1e9
                rows.append(
                    {
                        "name": f"{case} {direction}, {form}",
                        "path": kvops.swap.last_path(),
                        "seconds": taken,
                        "gb_per_second": rate,
                        "L": rate / link[direction],
                        "target": case.target,
                        "loop_seconds": loop,
                    }
                )
    return rows


def show(rows: list[dict]) -> None:
    table = Table(title="transfers, GB/s")
    for column in ("case", "path", "GB/s", "L", "target", "loop / time", ""):
        table.add_column(column)
    for row in rows:
        speedup = row["loop_seconds"] / row["seconds"]
        missed = row["target"] is not None and row["L"] < row["target"]
        table.add_row(
            *[row["name"], row["path"], f"{row['gb_per_second']:.1f}", f"{row['L']:.2f}"],
            *[str(row["target"] or "-"), f"{speedup:.2f}"],
            "missed" if missed or speedup < 1 else "",
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="cuda-transfer", help="of the result file")
    parser.add_argument("--commit", help="of kvops, where this is no checkout")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 65536])
    parser.add_argument("--items", type=int, nargs="+", default=[*MHA_ITEM_BYTES, MLA_ITEM_BYTES])
    parser.add_argument("--most-gib", type=float, default=9, help="leave larger cases out")
    arguments = parser.parse_args()
    cases = [
        Case(tokens, item, 1 if item == MLA_ITEM_BYTES else 2)
        for tokens in arguments.tokens
        for item in arguments.items
    ]
    cases = [case for case in cases if case.bytes <= arguments.most_gib * 2**30]
    most = max(case.bytes for case in cases)
    host = torch.empty(most, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(most, dtype=torch.uint8, device=DEVICE)
    link = link_rates()
    rows = [row for case in cases for row in measure(case, host, device, link)]
    show(rows)
    content = {"provenance": provenance(arguments.commit), "link": link, "rows": rows}
    path = RESULTS / f"{arguments.name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
