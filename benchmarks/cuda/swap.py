"""Swaps between pinned host memory and the GPU, against one large pinned copy of the same run.

    python benchmarks/cuda/swap.py [--name cuda-swap] [--commit HASH] [--part speed] ...

L is (call floor + bytes / link rate) / time: 1.0 means that nothing is left to gain. The link rate
is that of one 1 GiB pinned copy, the call floor the time of one of 4 KiB; all times are medians of
wall clock to completion. Parts: speed (the cases, also by the driver's batched copy and single
copies), curve (GB/s over block size for each path), beside (a decode step and a matrix product,
with and without a swap next to them). Writes benchmarks/results/<name>.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import kvops
from harness import DEVICE, RESULTS, provenance
from swap_beside import measure_beside
from swap_first_bytes import measure_first_bytes

KIB = 1 << 10
PARTS = ("speed", "curve", "beside")
LAYERS, ODD_SIZES = 61, (8448, 18432, 41984)


@dataclass(frozen=True)
class Case:
    """Blocks scattered over pools on both sides; `sizes` take turns from layer to layer."""

    name: str
    blocks: int
    sizes: tuple[int, ...]
    target: float

    @property
    def bytes(self) -> int:
        return sum(self.size(i) for i in range(self.blocks))

    def size(self, block: int) -> int:
        return self.sizes[block * LAYERS // self.blocks % len(self.sizes)]


def _equal(blocks: int, size: int, target: float) -> Case:
    text = f"{size} B" if size % KIB else f"{size // KIB} KiB"
    return Case(f"{blocks} x {text}", blocks, (size,), target)


CASES = (
    *(_equal(n, size * KIB, 0.75) for n, size in ((64, 4), (64, 32), (256, 4))),
    *(_equal(n, size * KIB, 0.87) for n, size in ((1024, 4), (4096, 4), (1024, 32), (64, 256))),
    *(_equal(n, size * KIB, 0.90) for n, size in ((32768, 4), (4096, 32), (1024, 256))),
    *(_equal(1024, size, 0.85) for size in ODD_SIZES),
    Case("61 layers x 18, sizes mixed", 61 * 18, ODD_SIZES, 0.85),
    _equal(4096, 512, 0.30),
)
CURVE_BYTES = 16 << 20
CURVE_SIZES = tuple(512 << i for i in range(14))  # 512 B to 4 MiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="cuda-swap", help="of the result file")
    parser.add_argument("--commit", help="of kvops, where this is no checkout")
    parser.add_argument("--part", action="append", choices=PARTS, help="all by default")
    arguments = parser.parse_args()
    parts = arguments.part or PARTS
    link = measure_link()
    content: dict[str, Any] = {"provenance": provenance(arguments.commit), "link": link}
    path = RESULTS / f"{arguments.name}.json"
    for part in parts:
        content |= measure_part(part, link)
        # After each part: this machine may be taken away.
        path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


def measure_part(part: str, link: dict[str, dict[str, float]]) -> dict[str, Any]:
    if part == "curve":
        return {"curve": measure_curve()}
    if part == "beside":
        rows = [asdict(row) for row in measure_beside()]
        print(*rows, sep="\n")
        return {"beside": rows}
    found = {
        "rows": [row for case in CASES for row in measure_case(case, link)],
        "any_order": measure_any_order(),
        "device": measure_within_device(),
        "host": measure_host_time(),
        "arrival": measure_first_bytes(4096, 4 * KIB),
    }
    show_speed(found)
    return found


def seconds(run: Callable[[], object], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def measure_link() -> dict[str, dict[str, float]]:
    """Bytes a second of one large pinned copy, and seconds of a small one, each way."""
    host = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
    device = torch.empty_like(host, device=DEVICE)
    link = {}
    for direction, src, dst in (("H2D", host, device), ("D2H", device, host)):
        large = seconds(lambda: dst.copy_(src, non_blocking=True), 5)  # noqa: B023
        head = src[:4096], dst[:4096]
        small = seconds(lambda: head[1].copy_(head[0], non_blocking=True), 101)  # noqa: B023
        link[direction] = {"bytes_per_second": host.nbytes / large, "floor_seconds": small}
    return link


def link_rates() -> dict[str, float]:
    """GB/s of one large pinned copy, each way."""
    return {way: numbers["bytes_per_second"] / 1e9 for way, numbers in measure_link().items()}


class Blocks:
    """A case's blocks in pools of twice their size, at random places on both sides."""

    def __init__(self, case: Case, direction: str) -> None:
        sizes = torch.tensor([case.size(i) for i in range(case.blocks)])
        slot = int(sizes.max())
        host = torch.empty(2 * case.blocks * slot, dtype=torch.uint8, pin_memory=True)
        device = torch.empty_like(host, device=DEVICE)
        ends = {"H2D": (host, device), "D2H": (device, host), "D2D": (device, device)}[direction]
        order = torch.randperm(2 * case.blocks)
        places = (order[: case.blocks], order[case.blocks :])
        self.pools = host, device
        self.tables: list[Tensor] = [
            *(end.data_ptr() + slot * place for end, place in zip(ends, places, strict=True)),
            sizes,
        ]
        self.any_order = direction == "H2D"

    def swap(self) -> None:
        kvops.swap_blocks_batch(*self.tables, self.any_order)


def measure_case(case: Case, link: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    rows = []
    for direction in ("H2D", "D2H"):
        blocks = Blocks(case, direction)
        at_best = case.bytes / link[direction]["bytes_per_second"]
        at_best += link[direction]["floor_seconds"]
        for wish in ("auto", "batch", "single"):
            row: dict[str, Any] = {"name": case.name, "direction": direction, "wish": wish}
            with kvops.swap.use_path(wish):
                repeats = 15 if wish == "auto" else 3
                row["default"] = seconds(blocks.swap, repeats)
                with torch.cuda.stream(torch.cuda.Stream()):
                    row["own"] = seconds(blocks.swap, repeats)
                row["path"] = kvops.swap.last_path()
            row |= {"bytes": case.bytes, "target": case.target}
            row |= {f"L_{stream}": at_best / row[stream] for stream in ("own", "default")}
            rows.append(row)
    return rows


def measure_any_order() -> list[dict[str, Any]]:
    """Host to device by the batched copy, which alone can make use of ANY order; GB/s."""
    rows = []
    for blocks, size in ((1024, 4 * KIB), (1024, 32 * KIB), (64, 256 * KIB)):
        case = _equal(blocks, size, 0)
        swaps = Blocks(case, "H2D")
        row: dict[str, Any] = {"name": case.name}
        with kvops.swap.use_path("batch"), torch.cuda.stream(torch.cuda.Stream()):
            for swaps.any_order in (False, True):
                rate = case.bytes / seconds(swaps.swap, 5) / 1e9
                row["ANY" if swaps.any_order else "STREAM"] = rate
        rows.append(row)
    return rows


def measure_within_device() -> dict[str, float]:
    """4096 x 32 KiB within the device against one large copy; bytes read and written."""
    blocks = Blocks(_equal(4096, 32 * KIB, 0.85), "D2D")
    source = torch.ones(2**31 // 4, device=DEVICE)
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / seconds(lambda: target.copy_(source)) / 1e9
    wall = seconds(blocks.swap)
    starts = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times = []
    for _ in range(15):
        torch.cuda._sleep(400_000)  # the host is ahead
        starts[0].record()
        blocks.swap()
        starts[1].record()
        torch.cuda.synchronize()
        times.append(starts[0].elapsed_time(starts[1]) * 1e-3)
    moved = 2 * 4096 * 32 * KIB / 1e9
    return {"copy": copy, "wall": moved / wall, "events": moved / statistics.median(times)}


def measure_host_time() -> dict[str, float]:
    """Seconds until the call returns; the first bytes move before that (swap_first_bytes.py)."""
    blocks = Blocks(_equal(4096, 4 * KIB, 0), "H2D")
    times = []
    for _ in range(30):
        torch.cuda.synchronize()
        start = time.perf_counter()
        blocks.swap()
        times.append(time.perf_counter() - start)
    return {"4096 x 4 KiB": statistics.median(times)}


def measure_curve() -> list[dict[str, Any]]:
    """GB/s of 16 MiB in blocks of each size, by each path and by the automatic choice."""
    rows = []
    for size in CURVE_SIZES:
        case = _equal(CURVE_BYTES // size, size, 0)
        for direction in ("H2D", "D2H"):
            blocks = Blocks(case, direction)
            row: dict[str, Any] = {"bytes": size, "direction": direction}
            with torch.cuda.stream(torch.cuda.Stream()):
                # The first calls with new pools are slower, by whatever path.
                seconds(blocks.swap)
                for wish in ("auto", "kernel", "batch", "single"):
                    with kvops.swap.use_path(wish):
                        slow = wish in ("batch", "single") and size < 8 * KIB
                        taken = seconds(blocks.swap, 1 if slow else 5)
                    row[wish] = CURVE_BYTES / taken / 1e9
            rows.append(row)
    return rows


def show_speed(content: dict[str, Any]) -> None:
    table = Table(title="swap_blocks_batch")
    for column in (
        "case",
        "wish",
        "path",
        "own, GB/s",
        "default, GB/s",
        "L",
        "L default",
        "target",
    ):
        table.add_column(column)
    for row in content["rows"]:
        rates = (f"{row['bytes'] / row[stream] / 1e9:.1f}" for stream in ("own", "default"))
        levels = (f"{row[f'L_{stream}']:.2f}" for stream in ("own", "default"))
        missed = row["wish"] == "auto" and min(row["L_own"], row["L_default"]) < row["target"]
        table.add_row(
            *(f"{row['name']} {row['direction']}", row["wish"], row["path"], *rates, *levels),
            f"{row['target']:.2f}{' missed' if missed else ''}",
        )
    Console(width=120).print(table)
    for key in ("any_order", "device", "host", "arrival"):
        print(key, content[key])


if __name__ == "__main__":
    main()
