"""Times rows against the machine's own rates and against peers, in one run.

A row's yardstick is the copy rate (bytes read + written by `dst.copy_(src)`) or the read rate
(`sum` of a large tensor), both measured in the same process. kvops and its peers take turns, so
that a machine that slows down slows all of them; medians are compared. Nothing is read back from
earlier runs.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import kvops

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One case: what to time, the bytes that must move, and what to compare it with."""

    name: str
    bytes: int
    run: Callable[[], object]
    peers: dict[str, Callable[[], object]] = field(default_factory=dict)
    yardstick: str = "copy"
    # Targets: fraction of the yardstick, and how many times faster than the best peer.
    target_fraction: float | None = None
    target_speedup: float | None = None


@dataclass
class Timing:
    """What was measured of one row; times in seconds, rates in GB/s."""

    name: str
    seconds: float
    gb_per_second: float
    yardstick: str
    fraction: float
    peers: dict[str, float]
    speedup: float | None
    target_fraction: float | None
    target_speedup: float | None

    @property
    def met(self) -> bool:
        return (self.target_fraction is None or self.fraction >= self.target_fraction) and (
            self.target_speedup is None or (self.speedup or 0) >= self.target_speedup
        )


def take_turns(runs: list[Callable[[], object]], budget_seconds: float) -> list[float]:
    """Median time of each, called in turn until the budget is spent (at least 5 rounds)."""
    for run in runs:
        run()
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + budget_seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def machine_rates() -> dict[str, float]:
    """GB/s that this machine copies (read + written) and reads."""
    source = torch.ones(256 * 2**20 // 4)
    target = torch.empty_like(source)
    wide = torch.ones(2**30 // 4)
    copy, read = take_turns([lambda: target.copy_(source), lambda: wide.sum()], 3)
    return {"copy": 2 * source.nbytes / copy / 1e9, "read": wide.nbytes / read / 1e9}


def measure(row: Row, rates: dict[str, float], budget_seconds: float) -> Timing:
    """Time one row beside its peers."""
    seconds, *peer_seconds = take_turns([row.run, *row.peers.values()], budget_seconds)
    rate = row.bytes / seconds / 1e9
    return Timing(
        name=row.name,
        seconds=seconds,
        gb_per_second=rate,
        yardstick=row.yardstick,
        fraction=rate / rates[row.yardstick],
        peers=dict(zip(row.peers, peer_seconds, strict=True)),
        speedup=min(peer_seconds) / seconds if peer_seconds else None,
        target_fraction=row.target_fraction,
        target_speedup=row.target_speedup,
    )


def provenance() -> dict[str, Any]:
    """Machine, versions and commit: what a reader needs to judge or repeat a figure."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
            break
    return {
        "processor": model,
        "threads": torch.get_num_threads(),
        "simd": kvops.info()["simd"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kvops": kvops.__version__,
        "commit": commit,
        "command": " ".join(["python", *sys.argv]),
    }


def show(title: str, timings: list[Timing]) -> None:
    """Print one table; a target that was missed says so."""
    table = Table(title=title)
    for column in ("case", "ms", "GB/s", "of rate", "target", "best peer", "speedup", "target", ""):
        table.add_column(column, justify="left" if column in ("case", "best peer") else "right")
    for t in timings:
        best = min(t.peers, key=t.peers.__getitem__) if t.peers else "-"
        table.add_row(
            *[t.name, f"{t.seconds * 1e3:.2f}", f"{t.gb_per_second:.1f}"],
            *[f"{t.fraction:.2f} {t.yardstick}", _number(t.target_fraction), best],
            *[_number(t.speedup), _number(t.target_speedup), "" if t.met else "missed"],
        )
    Console(width=130).print(table)


def save(
    name: str, rates: dict[str, float], tables: dict[str, list[Timing]], *, is_part: bool
) -> Path:
    """Write results/<name>.json with everything a table or plot is rendered from.

    A part replaces its own tables in the file, and says how they were measured under "later".
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    how = {"provenance": provenance(), "rates": rates}
    measured = {title: [asdict(t) for t in timings] for title, timings in tables.items()}
    content = {**how, "tables": measured}
    if is_part and path.exists():
        content = json.loads(path.read_text())
        content["tables"] |= measured
        content["later"] = content.get("later", {}) | dict.fromkeys(measured, how)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
