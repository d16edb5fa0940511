"""Renders recorded results into the tables of README.md and docs/performance.md.

    python benchmarks/render.py [--check]

Tables stand between `<!-- table: NAME -->` and `<!-- end -->`; only results in benchmarks/results/
are shown. With --check nothing is written, and the exit code is 1 if a table is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = ("README.md", "docs/performance.md")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        text = path.read_text()
        rendered = render(text)
        if rendered != text:
            stale.append(name)
            if not arguments.check:
                path.write_text(rendered)
    print("\n".join(f"{name}: {'out of date' if arguments.check else 'updated'}" for name in stale))
    return 1 if stale and arguments.check else 0


def render(text: str) -> str:
    """The text with every marked table made anew."""

    def table(found: re.Match[str]) -> str:
        body = TABLES[found.group(1)]()
        return f"<!-- table: {found.group(1)} -->\n{body}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def torch_matrix() -> str:
    """One row per torch that the wheel was really installed beside."""
    recorded = _read("torch-matrix")
    lines = [
        "| torch | CUDA build | Python | `_C_cuda` | operators | recorded calls | leaks | result |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in recorded["cells"]:
        counts = [
            f"{cell[name]['passed']} passed" if name in cell else "not run"
            for name in ("operators", "recorded calls", "str leak")
        ]
        library = cell.get("info", {}).get("_C_cuda", "-").split(",")[0].split(":")[0]
        columns = [cell["torch"], cell.get("cuda") or "none", cell["python"], library, *counts]
        lines.append("| " + " | ".join([*columns, "ok" if cell["ok"] else "FAILED"]) + " |")
    lines += ["", f"Recorded by `tools/torch_matrix.py` with `{recorded['wheel']}`."]
    return "\n".join(lines)


def cpu_summary() -> str:
    """One row per case, without the peers' times: for the README."""
    return _cpu_table(detailed=False)


def cpu_details() -> str:
    """Every column, and the machine: for docs/performance.md."""
    return _cpu_table(detailed=True)


def gpu_check() -> str:
    """What `tools/gpu_check.py` found on each kind of GPU that it was run on."""
    lines = ["| part | passed | failed | skipped | result |", "|---|---|---|---|---|"]
    recorded = _read("gpu-check")
    for name, part in recorded["parts"].items():
        counts = [str(part.get(count, "")) for count in ("passed", "failed", "skipped")]
        summary = "ok" if part["ok"] else "FAILED"
        if name.startswith("planted"):
            summary += ": the planted errors are found" if part["ok"] else ""
        elif "summary" in part:
            summary += f": {part['summary']}"
        lines.append("| " + " | ".join([name, *counts, summary]) + " |")
    lines += [
        "",
        f"{recorded['gpu']}, driver {recorded['driver']}, torch {recorded['torch']}, Python"
        f" {recorded['python']}, commit {recorded['commit'][:7]}, `{recorded['wheel']}` (sha256"
        f" {recorded['wheel_sha256'][:12]}…).",
    ]
    return "\n".join(lines)


# For the README: what a serving engine does most.
CUDA_SUMMARY = (
    *("64 x 8k, 32/8", "8 x 8k, 64/8", "1 x 8k, 32/8", "ragged, 128 to 32k, 32/8"),
    "reshape_and_cache, 65536 tokens, 8 x 128, page 16, auto",
    "reshape_and_cache_flash NHD, 65536 tokens, 8 x 128, page 16, auto",
    "concat_and_cache_mla, 65536 tokens, auto",
    "concat_and_cache_mla_rope_fused, 8192 tokens, 128 heads",
    "concat_mla_q, 4096 x 128 heads",
    "merge_attn_states, 8192 x 32 x 128",
    "gather_and_maybe_dequant_cache, 16 x 8k, auto",
    "cp_gather_cache, 16 x 8k",
)


def cuda_summary() -> str:
    """The cases of CUDA_SUMMARY: for the README."""
    return _cuda_table(detailed=False)


def cuda_details() -> str:
    """Every column: for docs/performance.md."""
    return _cuda_table(detailed=True)


def _cuda_table(detailed: bool) -> str:
    recorded = _read("cuda")
    where, rates = recorded["provenance"], recorded["rates"]
    head = ["case", "us", "attainable us", "GB/s", "A"]
    head += ["target", "met", "best recorded of others"] if detailed else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for title, timings in recorded["tables"].items():
        prefix = "paged_attention_v2, " if title == "attention" else ""
        for row in timings:
            if detailed or row["name"] in CUDA_SUMMARY:
                lines.append("| " + " | ".join(_cuda_cells(prefix, row, detailed)) + " |")
    lines += [
        "",
        f"{where['gpu']}, driver {where['driver']}, torch {where['torch']}; copy"
        f" {rates['copy_gb_per_second']:.0f} GB/s (read + written), call floor"
        f" {rates['floor_seconds'] * 1e6:.1f} us; commit {where['commit']};"
        f" `{where['command']}`.",
    ]
    return "\n".join(lines)


def cuda_swap() -> str:
    """Swaps on the default stream beside a stream of their own."""
    recorded = _read("cuda-swap")
    where, link = recorded["provenance"], recorded["link"]
    head = ["case", "path", "own stream, GB/s", "default stream, GB/s", "default / own", "L"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in recorded["rows"]:
        rates = [f"{row['own']:.1f}", f"{row['default']:.1f}"]
        ratios = [f"{row['default'] / row['own']:.2f}", f"{row['L']:.2f}"]
        lines.append("| " + " | ".join([row["name"], row["path"], *rates, *ratios]) + " |")
    lines += [
        "",
        f"{where['gpu']}, driver {where['driver']}, torch {where['torch']}; one pinned copy"
        f" {link['H2D']:.1f} GB/s in, {link['D2H']:.1f} GB/s out; commit {where['commit']};"
        f" `{where['command']}`.",
    ]
    return "\n".join(lines)


def _cuda_cells(prefix: str, row: dict[str, Any], detailed: bool) -> list[str]:
    cells = [
        prefix.replace("v2", "v1") + row["name"] if ", v1" in row["name"] else prefix + row["name"],
        f"{row['seconds'] * 1e6:.1f}",
        f"{row['attainable_seconds'] * 1e6:.1f}",
        f"{row['gb_per_second']:.0f}",
        f"{row['a']:.2f}",
    ]
    if not detailed:
        return cells
    target, recorded = row["target"], row["recorded"]
    met = "" if target is None else "yes" if row["a"] >= target else "missed"
    numbers = ["-" if number is None else f"{number:.2f}" for number in (target, recorded)]
    return [*cells, numbers[0], met, numbers[1]]


def _cpu_table(detailed: bool) -> str:
    recorded = _read("cpu")
    where, rates = recorded["provenance"], recorded["rates"]
    head = ["case", "ms", "GB/s", "of the machine's rate", "best PyTorch way", "times as fast"]
    head += ["targets: of rate, times", "met"] if detailed else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for timings in recorded["tables"].values():
        for row in timings:
            lines.append("| " + " | ".join(_cells(row, detailed)) + " |")
    lines += [
        "",
        f"{where['processor']}, {where['threads']} threads, SIMD level {where['simd']}; copy"
        f" {rates['copy']:.1f} GB/s (read + written), read {rates['read']:.1f} GB/s; torch"
        f" {where['torch']}, commit {where['commit']}; `{where['command']}`.",
    ]
    return "\n".join(lines)


def _cells(row: dict[str, Any], detailed: bool) -> list[str]:
    best = min(row["peers"], key=row["peers"].__getitem__) if row["peers"] else None
    cells = [
        row["name"],
        f"{row['seconds'] * 1e3:.2f}",
        f"{row['gb_per_second']:.1f}",
        f"{row['fraction']:.2f} of {row['yardstick']}",
        f"{best}: {row['peers'][best] * 1e3:.2f} ms" if best else "",
        f"{row['speedup']:.1f}" if best else "",
    ]
    if not detailed:
        return cells
    targets = [row["target_fraction"], row["target_speedup"]]
    missed = (targets[0] is not None and row["fraction"] < targets[0]) or (
        targets[1] is not None and row["speedup"] < targets[1]
    )
    texts = ["-" if target is None else f"{target:.2f}" for target in targets]
    return [*cells, ", ".join(texts), "missed" if missed else "yes"]


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


TABLES = {
    "torch_matrix": torch_matrix,
    "cpu_summary": cpu_summary,
    "cpu_details": cpu_details,
    "gpu_check": gpu_check,
    "cuda_summary": cuda_summary,
    "cuda_details": cuda_details,
    "cuda_swap": cuda_swap,
}

if __name__ == "__main__":
    raise SystemExit(main())
