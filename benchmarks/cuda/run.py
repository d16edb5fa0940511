"""Measures every operator on this machine's GPU and writes benchmarks/results/<name>.json.

    python benchmarks/cuda/run.py [--only attention] [--name h200]

Prints one table per capability. `benchmarks/render.py` turns the results into the tables of
README.md and docs/performance.md.
"""

from __future__ import annotations

import argparse
import time

import attention
import cache
import gather
import mla
from harness import Timing, measure, measure_rates, save, show

CAPABILITIES = {
    "attention": attention.rows,
    "cache": cache.rows,
    "mla": mla.rows,
    "gather": gather.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(CAPABILITIES), action="append")
    parser.add_argument("--name", default="cuda", help="of the result file")
    parser.add_argument("--commit", help="of kvops, where this is no checkout")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this long")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    rates = measure_rates()
    print(
        f"this device: copy {rates.copy_gb_per_second:.0f} GB/s,"
        f" call floor {rates.floor_seconds * 1e6:.1f} us",
        flush=True,
    )
    tables: dict[str, list[Timing]] = {}
    for name in arguments.only or CAPABILITIES:
        tables[name] = []
        for row in CAPABILITIES[name]():
            if time.monotonic() > end:
                print("out of time: later rows are missing", flush=True)
                break
            tables[name].append(measure(row, rates))
            print(f"  {name}: {row.name}: {tables[name][-1].a:.2f}", flush=True)
        show(name, tables[name])
    print(f"written: {save(arguments.name, rates, tables, arguments.commit)}")


if __name__ == "__main__":
    main()
