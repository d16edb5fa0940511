"""Draws docs/attention.svg: paged decode over batch x context, beside recorded figures of others.

    python benchmarks/plot.py

Bars are A = (call floor + bytes / copy rate) / time, each with the floor and the rate of the run
that measured it. Needs matplotlib: `pip install --group plots`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TARGET = ROOT / "docs" / "attention.svg"

# Batch x context, and the bytes of keys and values: 2 x 8 heads x 128 x 2 bytes a token.
TOKEN_BYTES = 2 * 8 * 128 * 2
CASES = {
    "1 x 1k": 1024,
    "1 x 8k": 8192,
    "1 x 128k": 131072,
    "8 x 8k": 8 * 8192,
    "256 x 1k": 256 * 1024,
    "64 x 2k": 64 * 2048,
    "64 x 8k": 64 * 8192,
}


def main() -> None:
    bars = {"kvops": ours(), **others()}
    figure, axes = pyplot.subplots(figsize=(9, 4))
    width = 0.8 / len(bars)
    for i, (name, values) in enumerate(bars.items()):
        places = [at + (i - (len(bars) - 1) / 2) * width for at in range(len(CASES))]
        axes.bar(places, [values.get(case, 0.0) for case in CASES], width, label=name)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(CASES)), list(CASES))
    axes.set_ylabel("A: attainable time / time")
    axes.set_title("Paged decode, bfloat16, 32/8 heads of 128, pages of 16, NVIDIA H200")
    axes.legend(fontsize="small", loc="upper left")
    figure.tight_layout()
    pyplot.rcParams["svg.hashsalt"] = "kvops"  # equal results, equal file
    figure.savefig(TARGET, metadata={"Date": None})
    print(f"written: {TARGET.relative_to(ROOT)}")


def ours() -> dict[str, float]:
    timings = _read("cuda")["tables"]["attention"]
    return {t["name"].removesuffix(", 32/8"): t["a"] for t in timings if t["name"].endswith("32/8")}


def others() -> dict[str, dict[str, float]]:
    recorded = _read("recorded-attention")
    rates = recorded["rates"]

    def fraction(case: str, microseconds: float) -> float:
        moved = CASES[case] * TOKEN_BYTES / rates["copy_gb_per_second"] / 1e9
        return (rates["floor_seconds"] + moved) / (microseconds * 1e-6)

    bars = {
        name: {case: fraction(case, time) for case, time in times.items()}
        for name, times in recorded["microseconds"].items()
    }
    for name, fractions in recorded["fraction of attainable"].items():
        bars[name] |= fractions
    return bars


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


if __name__ == "__main__":
    main()
