"""Measures paged attention beside FlashInfer, and writes benchmarks/results/cuda-flashinfer.json.

    python benchmarks/cuda/attention_beside.py [--only "8 x 8k"]

Both get the same batches in one process and are timed by the same harness. The result of every call
of FlashInfer is compared with kvops' before it is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import time
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

import attention
import flashinfer_peer
from harness import RESULTS, Rates, measure_rates, provenance, seconds

# Of the result's norm: both round the same numbers to bfloat16, in a different order.
MOST_ERROR = 0.02


@dataclass(frozen=True)
class Beside:
    """Seconds of kvops and of each way of FlashInfer, and why it refused the others.

    Ways in `differing` gave another result than kvops (the error is kept): they are timed, too, but
    not counted as a way of doing the same.
    """

    name: str
    attainable_seconds: float
    kvops: float
    flashinfer: dict[str, float]
    refused: dict[str, str]
    differing: dict[str, float]

    @property
    def best(self) -> str:
        agreeing = [way for way in self.flashinfer if way not in self.differing]
        if not agreeing:
            sys.exit(f"{self.name}: no way of FlashInfer agrees with kvops: {self}")
        return min(agreeing, key=self.flashinfer.__getitem__)

    @property
    def ratio(self) -> float:
        """More than 1 where kvops is faster."""
        return self.flashinfer[self.best] / self.kvops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="cases whose names start like this")
    parser.add_argument("--commit", help="of kvops, where this is no checkout")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this long")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    if importlib.util.find_spec("flashinfer") is None:
        sys.exit("FlashInfer is not installed here: pip install flashinfer-python")
    rates = measure_rates()
    rows = []
    for name, case, _, _ in attention.cases():
        wanted = arguments.only is None or name.startswith(tuple(arguments.only))
        if wanted and flashinfer_peer.comparable(case):
            if time.monotonic() > end:
                print("out of time: later rows are missing", flush=True)
                break
            rows.append(measure(name, case, rates))
            print(f"  {name}: {rows[-1].ratio:.2f}", flush=True)
    show(rows)
    save(rows, rates, arguments.commit)


def measure(name: str, case: attention.Case, rates: Rates) -> Beside:
    batch = attention.draw(case)
    run = attention.attend(batch)
    expected = run().double()
    own, taken, refused, differing = seconds(run), {}, {}, {}
    for way in flashinfer_peer.ways(batch):
        try:
            call = way.plan()
            found = call()
        except (RuntimeError, ValueError) as error:
            # Not where FlashInfer was built.
            refused[way.name] = re.sub(r"/\S*/", "", str(error).strip().splitlines()[-1])
            continue
        off = ((found.double() - expected).norm() / expected.norm()).item()
        if not off <= MOST_ERROR:
            differing[way.name] = off
        taken[way.name] = seconds(call)
    return Beside(name, rates.attainable(case.bytes), own, taken, refused, differing)


def show(rows: list[Beside]) -> None:
    table = Table(title="paged attention beside FlashInfer")
    for column in ("case", "kvops, us", "FlashInfer, us", "by", "times as fast"):
        table.add_column(column, justify="left" if column in ("case", "by") else "right")
    for row in rows:
        other = row.flashinfer[row.best]
        numbers = [f"{row.kvops * 1e6:.1f}", f"{other * 1e6:.1f}", row.best]
        table.add_row(row.name, *numbers, f"{row.ratio:.2f}")
    Console(width=110).print(table)


def save(rows: list[Beside], rates: Rates, commit: str | None) -> None:
    import flashinfer

    content = {
        "provenance": provenance(commit) | {"flashinfer": flashinfer.__version__},
        "rates": asdict(rates),
        "rows": [asdict(row) | {"best": row.best} for row in rows],
    }
    path = RESULTS / "cuda-flashinfer.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
