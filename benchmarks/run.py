"""Measures every operator on this machine's CPU and writes benchmarks/results/<name>.json.

    python benchmarks/run.py [--only attention] [--name cpu] [--seconds 1.5]

Prints one table per capability: time, rate, fraction of the machine's copy or read rate, and the
best way of doing the same in PyTorch, all measured in this run. Other tables that the file has stay
with --only. `benchmarks/render.py` turns the results into the tables of README.md and
docs/performance.md.
"""

from __future__ import annotations

import argparse

import bench_attention
import bench_cache
import bench_gather
import bench_mla
import bench_transfer
from harness import machine_rates, measure, save, show

CAPABILITIES = {
    "attention": bench_attention.rows,
    "cache": bench_cache.rows,
    "mla": bench_mla.rows,
    "gather": bench_gather.rows,
    "transfer": bench_transfer.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(CAPABILITIES), action="append")
    parser.add_argument("--name", default="cpu", help="of the result file")
    parser.add_argument("--seconds", type=float, default=1.5, help="time spent on each row")
    arguments = parser.parse_args()
    rates = machine_rates()
    print(f"this machine: copy {rates['copy']:.1f} GB/s, read {rates['read']:.1f} GB/s", flush=True)
    tables = {}
    for name in arguments.only or CAPABILITIES:
        tables[name] = []
        for row in CAPABILITIES[name]():
            print(f"  {name}: {row.name}", flush=True)
            tables[name].append(measure(row, rates, arguments.seconds))
        show(name, tables[name])
    file = save(arguments.name, rates, tables, is_part=bool(arguments.only))
    print(f"written: {file}")


if __name__ == "__main__":
    main()
