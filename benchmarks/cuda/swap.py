"""Swaps between pinned host memory and the GPU: default stream beside a stream of its own.

    python benchmarks/cuda/swap.py [--name cuda-swap] [--commit HASH]

Wall clock to completion, medians; L is the fraction of the rate of one 1 GiB pinned copy, measured
in the same run. Writes benchmarks/results/<name>.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import kvops
from harness import DEVICE, RESULTS, provenance

CASES = ((64, 4 << 10), (1024, 4 << 10), (4096, 4 << 10), (1024, 32 << 10), (256, 256 << 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="cuda-swap", help="of the result file")
    parser.add_argument("--commit", help="of kvops, where this is no checkout")
    arguments = parser.parse_args()
    link = link_rates()
    rows = [row for blocks, size in CASES for row in measure(blocks, size, link)]
    table = Table(title="swap_blocks_batch, GB/s")
    for column in ("case", "path", "own stream", "default stream", "default / own", "L"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            *[row["name"], row["path"], f"{row['own']:.1f}", f"{row['default']:.1f}"],
            *[f"{row['default'] / row['own']:.2f}", f"{row['L']:.2f}"],
        )
    Console(width=110).print(table)
    content = {"provenance": provenance(arguments.commit), "link": link, "rows": rows}
    path = RESULTS / f"{arguments.name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


def seconds(run: Callable[[], object], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def link_rates() -> dict[str, float]:
    """GB/s of one large pinned copy, each way."""
    host = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
    device = torch.empty_like(host, device=DEVICE)
    to_device = seconds(lambda: device.copy_(host, non_blocking=True), 5)
    to_host = seconds(lambda: host.copy_(device, non_blocking=True), 5)
    return {"H2D": host.nbytes / to_device / 1e9, "D2H": host.nbytes / to_host / 1e9}


def measure(blocks: int, size: int, link: dict[str, float]) -> list[dict[str, object]]:
    host = torch.empty(2 * blocks * size, dtype=torch.uint8, pin_memory=True)
    device = torch.empty_like(host, device=DEVICE)
    rows: list[dict[str, object]] = []
    for direction, src, dst in (("H2D", host, device), ("D2H", device, host)):
        sources = src.data_ptr() + size * torch.randperm(2 * blocks)[:blocks]
        targets = dst.data_ptr() + size * torch.randperm(2 * blocks)[:blocks]
        sizes = torch.full((blocks,), size)
        any_order = direction == "H2D"

        def swap() -> None:
            kvops.swap_blocks_batch(sources, targets, sizes, any_order)  # noqa: B023

        # The paths that the driver takes part in are what the default stream makes slow.
        for path in ("auto", "batch"):
            with kvops.swap.use_path(path):
                default = seconds(swap)
                with torch.cuda.stream(torch.cuda.Stream()):
                    own = seconds(swap)
                taken = kvops.swap.last_path()
            moved = blocks * size / 1e9
            rows.append(
                {
                    "name": f"{blocks} x {size >> 10} KiB {direction}, {path}",
                    "path": taken,
                    "own": moved / own,
                    "default": moved / default,
                    "L": moved / own / link[direction],
                }
            )
    return rows


if __name__ == "__main__":
    main()
