"""Renders recorded results into the tables of README.md and of docs/.

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

import plot_swap

ROOT = Path(__file__).resolve().parent.parent
DRAWING = "docs/swaps.svg"
RESULTS = ROOT / "benchmarks" / "results"
NOT_RECORDED = "Not recorded yet."
MAX_WHEEL_MB = 60  # tools/release.py refuses more
DOCUMENTS = ("README.md", "docs/performance.md", "docs/releasing.md")


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
    stale += draw(arguments.check)
    print("\n".join(f"{name}: {'out of date' if arguments.check else 'updated'}" for name in stale))
    return 1 if stale and arguments.check else 0


def draw(check: bool) -> list[str]:
    """Make the drawing anew, if a curve was recorded; its name if it was not what it is now."""
    recorded = _read("cuda-swap")
    path = ROOT / DRAWING
    if "curve" not in recorded or (path.exists() and path.read_text() == plot_swap.draw(recorded)):
        return []
    if not check:
        path.write_text(plot_swap.draw(recorded))
    return [DRAWING]


def render(text: str) -> str:
    """The text with every marked table made anew."""

    def table(found: re.Match[str]) -> str:
        body = TABLES[found.group(1)]()
        return f"<!-- table: {found.group(1)} -->\n{body}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def wheel_size() -> str:
    """What a wheel for every architecture weighs, and what it costs to build."""
    recorded = _read("wheel")
    lines = ["| part | MB |", "|---|---|"]
    parts = {f"the wheel, compressed (at most {MAX_WHEEL_MB})": recorded["bytes"]}
    parts |= {f"`{name}`, installed": size for name, size in recorded["libraries"].items()}
    for code in recorded["gpu code"]:
        parts[f"GPU code for {code['for']}"] = code["bytes"]
    parts["the sdist"] = recorded["sdist"]
    lines += [f"| {name} | {size / 1e6:.1f} |" for name, size in parts.items()]
    minutes = recorded["build CPU seconds"] / 60
    lines += [
        "",
        f"`{recorded['wheel']}`, commit {recorded['commit']}, built in {minutes:.0f} minutes of one"
        " core: `KVOPS_CUDA_ARCHS=all python tools/release.py all --development --json FILE`.",
    ]
    return "\n".join(lines)


# What is promised, and what is looked at because it comes next (free-threaded Python, nightlies).
MATRIX_PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.14t")
MATRIX_BUILDS = {"CPU": None, "CUDA 12": "12", "CUDA 13": "13"}
MATRIX_CHECKS = ("operators", "recorded calls", "leaks")


def torch_matrix() -> str:
    """Torch by Python: what the wheel was really installed beside, and what is missing."""
    recorded = _read("torch-matrix")
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in recorded["cells"]:
        release = cell["torch"].split("+")[0]
        for build, major in MATRIX_BUILDS.items():
            # A torch that does not exist for a Python has no build either.
            has = (cell.get("cuda") or "").split(".")[0] or None
            if cell["no wheel"] or has == major:
                cells.setdefault((f"{release}, {build}", cell["python"]), cell)
    releases = sorted({row.split(",")[0] for row, _ in cells}, key=_numbers)
    rows = [f"{release}, {build}" for release in releases for build in MATRIX_BUILDS]
    lines = ["| torch | " + " | ".join(MATRIX_PYTHONS) + " |", "|---" * 7 + "|"]
    for row in [*rows, "nightly, CPU", "nightly, CUDA 13"]:
        states = [_matrix_cell(cells.get((row, python))) for python in MATRIX_PYTHONS]
        lines.append(f"| {row} | " + " | ".join(states) + " |")
    full = [cell for cell in cells.values() if all(name in cell for name in MATRIX_CHECKS)]
    counts = [min(cell[name]["passed"] for cell in full) for name in MATRIX_CHECKS]
    lines += [
        "",
        f"**ok**: imported, {counts[0]} tests of operators, {counts[1]} recorded calls and"
        f" {counts[2]} tests for leaks passed; **calls**: imported, and the recorded calls passed;"
        " **–**: not run here, left to `.github/workflows/wheel.yml`."
        " PyPI has the CUDA 12 build of 2.10 and the CUDA 13 builds of the others. Recorded by"
        f" `tools/torch_matrix.py` with `{recorded['wheel']}` (sha256"
        f" {recorded['sha256'][:12]}…) on a machine without a GPU.",
    ]
    return "\n".join(lines)


def _matrix_cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    if cell["no wheel"]:
        return "no such torch"
    if not cell["ok"]:
        return "FAILED"
    return "**ok**" if all(name in cell for name in MATRIX_CHECKS) else "calls"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


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
        elif "selected" in part:
            summary += f": tests named {part['selected']}"
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
    later = [
        f" Rows with a * were measured at commit {commit}: copy"
        f" {run['rates']['copy_gb_per_second']:.0f} GB/s, call floor"
        f" {run['rates']['floor_seconds'] * 1e6:.1f} us; {run['note']}."
        for commit, run in recorded.get("later", {}).items()
    ]
    lines += [
        "",
        f"{where['gpu']}, driver {where['driver']}, torch {where['torch']}; copy"
        f" {rates['copy_gb_per_second']:.0f} GB/s (read + written), call floor"
        f" {rates['floor_seconds'] * 1e6:.1f} us; commit {where['commit']};"
        f" `{where['command']}`." + "".join(later),
    ]
    return "\n".join(lines)


def cuda_flashinfer() -> str:
    """Paged attention beside the fastest way of FlashInfer, in one run."""
    if not (RESULTS / "cuda-flashinfer.json").exists():
        return NOT_RECORDED
    recorded = _read("cuda-flashinfer")
    where, rates = recorded["provenance"], recorded["rates"]
    head = ["case", "attainable us", "kvops, us", "FlashInfer, us", "its fastest way"]
    head += ["FlashInfer / kvops", "not slower"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    slower, differing = 0, []
    for row in recorded["rows"]:
        other = row["flashinfer"][row["best"]]
        slower += row["kvops"] > other
        times = [f"{time * 1e6:.1f}" for time in (row["attainable_seconds"], row["kvops"], other)]
        verdict = "**slower**" if row["kvops"] > other else "yes"
        cells = [row["name"], *times, row["best"], f"{other / row['kvops']:.2f}", verdict]
        lines.append("| " + " | ".join(cells) + " |")
        for way, off in row["differing"].items():
            taken = row["flashinfer"].get(way)
            spent = "not timed" if taken is None else f"{taken * 1e6:.1f} us"
            differing.append(f"{row['name']} by {way} ({off:.3f} of the result's norm; {spent})")
    lines += [
        "",
        f"kvops is slower in {slower} of {len(recorded['rows'])} cases. {where['gpu']}, driver"
        f" {where['driver']}, torch {where['torch']}, FlashInfer {where['flashinfer']}; copy"
        f" {rates['copy_gb_per_second']:.0f} GB/s (read + written), call floor"
        f" {rates['floor_seconds'] * 1e6:.1f} us; commit {where['commit']};"
        f" `{where['command']}`.",
    ]
    if differing:
        lines += ["", f"Not counted, for another result than kvops': {'; '.join(differing)}."]
    return "\n".join(lines)


def cuda_swap() -> str:
    """Swaps by the automatic choice, beside the driver's batched copy and single copies."""
    recorded = _read("cuda-swap")
    where, link = recorded["provenance"], recorded["link"]
    head = ["case", "path", "own stream, GB/s", "default stream, GB/s", "L", "L, default stream"]
    head += ["target", "batch, L", "single, L", "met"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    by_wish = {(row["name"], row["direction"], row["wish"]): row for row in recorded["rows"]}
    for (name, direction, wish), row in by_wish.items():
        if wish != "auto":
            continue
        rates = [f"{row['bytes'] / row[stream] / 1e9:.1f}" for stream in ("own", "default")]
        levels = [row["L_own"], row["L_default"]]
        others = [by_wish[name, direction, other]["L_own"] for other in ("batch", "single")]
        met = "yes" if min(levels) >= row["target"] else "missed"
        cells = [f"{name} {direction}", row["path"], *rates, *(f"{level:.2f}" for level in levels)]
        cells += [f"{row['target']:.2f}", *(f"{other:.2f}" for other in others), met]
        lines.append("| " + " | ".join(cells) + " |")
    rates = [f"{link[way]['bytes_per_second'] / 1e9:.1f} GB/s" for way in ("H2D", "D2H")]
    floors = [f"{link[way]['floor_seconds'] * 1e6:.1f} us" for way in ("H2D", "D2H")]
    lines += [
        "",
        f"{where['gpu']}, driver {where['driver']}, torch {where['torch']}; one pinned copy of"
        f" 1 GiB {rates[0]} in, {rates[1]} out, one of 4 KiB {floors[0]} and {floors[1]}; commit"
        f" {where['commit']}; `{where['command']}`.",
    ]
    return "\n".join(lines)


def cuda_transfer() -> str:
    """Transfers of every form beside the link and a loop of copies."""
    recorded = _read("cuda-transfer")
    where, link = recorded["provenance"], recorded["link"]
    head = ["case", "path", "GB/s", "L", "target", "times as fast as the loop", "met"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in recorded["rows"]:
        target, speedup = row["target"], row["loop_seconds"] / row["seconds"]
        met = (target is None or row["L"] >= target) and speedup >= 1
        cells = [row["name"], row["path"], f"{row['gb_per_second']:.1f}", f"{row['L']:.2f}"]
        cells += ["-" if target is None else f"{target:.2f}", f"{speedup:.1f}"]
        lines.append("| " + " | ".join([*cells, "yes" if met else "missed"]) + " |")
    lines += [
        "",
        f"{where['gpu']}, driver {where['driver']}, torch {where['torch']}; one pinned copy"
        f" {link['H2D']:.1f} GB/s in, {link['D2H']:.1f} GB/s out; commit {where['commit']};"
        f" `{where['command']}`.",
    ]
    return "\n".join(lines)


def cuda_swap_beside() -> str:
    """Decode steps and matrix products with and without swaps next to them."""
    recorded = _read("cuda-swap")
    if "beside" not in recorded:
        return NOT_RECORDED
    head = ["work", "swap", "asked for", "path", "work alone, us", "beside", "slower by"]
    head += ["swap alone, GB/s", "beside", "fraction of the link"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in recorded["beside"]:
        link = recorded["link"][row["direction"]]["bytes_per_second"]
        slower = row["step_beside"] / row["step_alone"] - 1
        cells = [row["work"], f"{row['name']} {row['direction']}", row["wish"], row["path"]]
        cells += [f"{row['step_alone'] * 1e6:.0f}", f"{row['step_beside'] * 1e6:.0f}"]
        cells += [f"{slower * 100:.0f} %", f"{row['rate_alone'] / 1e9:.1f}"]
        cells += [f"{row['rate_beside'] / 1e9:.1f}", f"{row['rate_beside'] / link:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cuda_swap_curve() -> str:
    """GB/s over block size, and the drawing of it."""
    recorded = _read("cuda-swap")
    if "curve" not in recorded:
        return NOT_RECORDED
    paths = ("auto", "kernel", "batch", "single")
    head = ["block, bytes", *(f"{path} {way}" for way in ("H2D", "D2H") for path in paths)]
    lines = ["![GB/s over block size](swaps.svg)", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    rows = {(row["bytes"], row["direction"]): row for row in recorded["curve"]}
    for size in dict.fromkeys(row["bytes"] for row in recorded["curve"]):
        rates = [rows[size, way][path] for way in ("H2D", "D2H") for path in paths]
        lines.append(f"| {size} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |")
    return "\n".join(lines)


def cuda_swap_more() -> str:
    """What the table of cases does not hold."""
    recorded = _read("cuda-swap")
    device, host = recorded["device"], recorded["host"]["4096 x 4 KiB"]
    lines = [
        "| | |",
        "|---|---|",
        f"| within the device, 4096 x 32 KiB, GPU time | {device['events']:.0f} GB/s,"
        f" {device['events'] / device['copy']:.2f} of one large copy |",
        f"| the same, wall clock | {device['wall']:.0f} GB/s,"
        f" {device['wall'] / device['copy']:.2f} |",
        f"| until the call returns, 4096 x 4 KiB, idle stream | {host * 1e6:.0f} us |",
    ]
    if arrival := recorded.get("arrival"):
        first, last = (f"{arrival[which] * 1e6:.0f}" for which in ("first", "last"))
        lines.append(
            f"| from the call to its first and last block in pinned memory | {first}, {last} us |"
        )
    for row in recorded["any_order"]:
        orders = f"{row['STREAM']:.1f}, {row['ANY']:.1f} GB/s"
        lines.append(f"| batch, {row['name']} H2D, STREAM and ANY order | {orders} |")
    return "\n".join(lines)


def _cuda_cells(prefix: str, row: dict[str, Any], detailed: bool) -> list[str]:
    if ", v1" in row["name"]:
        prefix = prefix.replace("v2", "v1")
    cells = [
        prefix + row["name"] + (" *" if "commit" in row else ""),
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
    head = ["case", "ms", "GB/s", "of the machine's rate", "best PyTorch way", "times as fast"]
    head += ["targets: of rate, times", "met"] if detailed else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for timings in recorded["tables"].values():
        for row in timings:
            lines.append("| " + " | ".join(_cells(row, detailed)) + " |")
    lines += ["", _cpu_run(recorded)]
    for title, run in recorded.get("later", {}).items():
        lines += ["", f"The rows of {title} were measured in another run: {_cpu_run(run)}"]
    return "\n".join(lines)


def _cpu_run(run: dict[str, Any]) -> str:
    where, rates = run["provenance"], run["rates"]
    return (
        f"{where['processor']}, {where['threads']} threads, SIMD level {where['simd']}; copy"
        f" {rates['copy']:.1f} GB/s (read + written), read {rates['read']:.1f} GB/s; torch"
        f" {where['torch']}, commit {where['commit']}; `{where['command']}`."
    )


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
    "wheel_size": wheel_size,
    "torch_matrix": torch_matrix,
    "cpu_summary": cpu_summary,
    "cpu_details": cpu_details,
    "gpu_check": gpu_check,
    "cuda_summary": cuda_summary,
    "cuda_details": cuda_details,
    "cuda_flashinfer": cuda_flashinfer,
    "cuda_swap": cuda_swap,
    "cuda_transfer": cuda_transfer,
    "cuda_swap_beside": cuda_swap_beside,
    "cuda_swap_curve": cuda_swap_curve,
    "cuda_swap_more": cuda_swap_more,
}

if __name__ == "__main__":
    raise SystemExit(main())
