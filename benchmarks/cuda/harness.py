"""Times CUDA calls against what the device can do, all in one run.

A row's figure is A = (call floor + bytes / copy rate) / time: 1.0 means that nothing is left to
gain. The call floor is the time of `torch.neg` of one element, the copy rate that of a 2 GiB
device copy (bytes read + bytes written). Times are medians of `triton.testing.do_bench`, which
empties the L2 cache before each call.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from triton.testing import do_bench

import kvops

RESULTS = Path(__file__).resolve().parent.parent / "results"
DEVICE = "cuda"


@dataclass(frozen=True)
class Row:
    """One case: its name, the bytes that must move, the target for A if any.

    `make` builds the arguments on the device and returns the call; both live only while the row
    is measured.
    `recorded` is the best A that was measured for another library on the same kind of GPU
    (docs/performance.md says which); it is shown, never computed with.
    """

    name: str
    bytes: int
    make: Callable[[], Callable[[], object]]
    target: float | None = None
    recorded: float | None = None


@dataclass(frozen=True)
class Rates:
    """What the device does in this run: GB/s of a large copy, seconds of the smallest call."""

    copy_gb_per_second: float
    floor_seconds: float

    def attainable(self, moved_bytes: int) -> float:
        return self.floor_seconds + moved_bytes / self.copy_gb_per_second / 1e9


@dataclass(frozen=True)
class Timing:
    """What was measured of one row."""

    name: str
    seconds: float
    gb_per_second: float
    attainable_seconds: float
    a: float
    target: float | None
    recorded: float | None


def seconds(run: Callable[[], object]) -> float:
    """Median time of a call, with a cold L2 cache."""
    return do_bench(run, warmup=10, rep=60, return_mode="median") * 1e-3


def measure_rates() -> Rates:
    source = torch.ones(2**31 // 4, device=DEVICE)
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / seconds(lambda: target.copy_(source)) / 1e9
    one = torch.ones(1, device=DEVICE)
    return Rates(copy, seconds(lambda: torch.neg(one)))


def measure(row: Row, rates: Rates) -> Timing:
    taken = seconds(row.make())
    attainable = rates.attainable(row.bytes)
    rate = row.bytes / taken / 1e9
    return Timing(
        *[row.name, taken, rate, attainable, attainable / taken, row.target, row.recorded]
    )


def show(title: str, timings: list[Timing]) -> None:
    table = Table(title=title)
    for column in ("case", "us", "attainable us", "GB/s", "A", "target", "recorded", ""):
        table.add_column(column, justify="left" if column == "case" else "right")
    for t in timings:
        missed = t.target is not None and t.a < t.target
        table.add_row(
            *[t.name, f"{t.seconds * 1e6:.1f}", f"{t.attainable_seconds * 1e6:.1f}"],
            *[f"{t.gb_per_second:.0f}", f"{t.a:.2f}", _number(t.target), _number(t.recorded)],
            "missed" if missed else "",
        )
    Console(width=110).print(table)


def provenance(commit: str | None) -> dict[str, Any]:
    """Machine, versions and commit: what a reader needs to judge or repeat a figure."""
    if commit is None:
        command = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": _driver(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kvops": kvops.__version__,
        "build": kvops.info()["_C_cuda"],
        "commit": commit,
        "command": " ".join(["python", *sys.argv]),
    }


def save(name: str, rates: Rates, tables: dict[str, list[Timing]], commit: str | None) -> Path:
    """Write results/<name>.json with everything a table or plot is rendered from."""
    content = {
        "provenance": provenance(commit),
        "rates": asdict(rates),
        "tables": {title: [asdict(t) for t in timings] for title, timings in tables.items()},
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
