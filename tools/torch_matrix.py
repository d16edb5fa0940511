"""Installs one wheel beside many torches and runs the same checks in each.

    python tools/torch_matrix.py WHEEL [--torch 2.10.0 --torch 2.13.0+cpu ...] [--json FILE]

Each cell is a fresh environment (made by uv, removed afterwards, one at a time: a CUDA build of
torch takes 5 GB): torch, the wheel, and the test files' own needs. In it are run, from outside of
the checkout's packages: the import, every operator against the reference, the recorded calls,
and 100,000 calls with a `str` argument for leaks. A cell also asserts that torch is the release
and the CUDA build that its name says. The table and the JSON hold what was run and nothing else.

CPU builds (`+cpu`) are installed by pip, which must be able to find them (PIP_EXTRA_INDEX_URL).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
TORCHES = ("2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0", "2.13.0+cpu")
# The CUDA release that PyPI's Linux wheel of each torch was built with.
CUDA_OF = {
    "2.10.0": "12.8",
    "2.11.0": "13.0",
    "2.12.1": "13.0",
    "2.13.0": "13.0",
    "2.14.1": "13.0",
    "2.15.0": "13.2",
}
NEEDS = ("numpy", "pytest", "pytest-timeout", "hypothesis", "expecttest", "setuptools")
CHECKS = {
    "operators": ("tests/test_operators.py", "cpu"),
    "recorded calls": ("tests/test_golden.py", "cpu and not reference"),
    "str leak": ("tests/test_leaks.py", ""),
}
PROBE = """
import json, time
start = time.monotonic()
import torch
after_torch = time.monotonic()
import kvops
done = time.monotonic()
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "info": kvops.info(),
                  "file": kvops.__file__, "import seconds": round(done - after_torch, 3)}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", action="append", help=f"default: {' '.join(TORCHES)}")
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--leak-calls", type=int, default=100_000)
    arguments = parser.parse_args()
    wheel = arguments.wheel.resolve()
    if not wheel.exists():
        parser.error(f"no such wheel: {wheel}")
    cells = []
    for release in arguments.torch or TORCHES:
        print(f"torch {release}: ", end="", flush=True)
        cell = run_cell(wheel, release, arguments.python, arguments.leak_calls)
        print("ok" if cell["ok"] else f"FAILED: {cell['error']}", flush=True)
        cells.append(cell)
    show(cells)
    if arguments.json:
        result = {"wheel": wheel.name, "machine": platform.machine(), "cells": cells}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(cell["ok"] for cell in cells) else 1


def run_cell(wheel: Path, release: str, python: str, leak_calls: int) -> dict[str, Any]:
    """One torch: install, probe, check. Never raises for what the cell itself does wrong."""
    cell: dict[str, Any] = {"torch": release, "python": python, "ok": False, "error": None}
    start = time.monotonic()
    try:
        with environment(python) as interpreter:
            install(interpreter, wheel, release)
            cell["install seconds"] = round(time.monotonic() - start)
            probe(interpreter, release, wheel, cell)
            for name, (file, keyword) in CHECKS.items():
                cell[name] = run_tests(interpreter, file, keyword, leak_calls)
                if cell[name]["failed"] or not cell[name]["passed"]:
                    cell["error"] = f"{name}: {cell[name]}"
                    return cell
    except (AssertionError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or getattr(error, "output", None) or ""
        cell["error"] = f"{error} {output[-2000:]}".strip()
        return cell
    cell["seconds"] = round(time.monotonic() - start)
    cell["ok"] = True
    return cell


@contextmanager
def environment(python: str) -> Iterator[Path]:
    """A fresh virtual environment; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="kvops-matrix-"))
    try:
        run(["uv", "venv", "--quiet", "--seed", "--python", python, str(folder / "env")])
        yield folder / "env" / "bin" / "python"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def install(interpreter: Path, wheel: Path, release: str) -> None:
    print("installing, ", end="", flush=True)
    if release.endswith("+cpu"):
        run([interpreter, "-m", "pip", "install", "--quiet", f"torch=={release}"])
    else:
        run(["uv", "pip", "install", "--quiet", "--python", interpreter, f"torch=={release}"])
    run(["uv", "pip", "install", "--quiet", "--python", interpreter, *NEEDS])
    # --no-deps: installing kvops must not be what changes torch.
    run(["uv", "pip", "install", "--quiet", "--python", interpreter, "--no-deps", wheel])


def probe(interpreter: Path, release: str, wheel: Path, cell: dict[str, Any]) -> None:
    """Import kvops and assert that this is the torch and the kvops that we think it is."""
    print("importing, ", end="", flush=True)
    # Not from the checkout: the installed package must be the one that is imported.
    printed = run([interpreter, "-I", "-c", PROBE], cwd=interpreter.parent).strip()
    facts = json.loads(printed.splitlines()[-1])
    cell.update(cuda=facts["cuda"], info=facts["info"])
    cell["import seconds"] = facts["import seconds"]
    version = release.split("+")[0]
    assert facts["torch"].split("+")[0] == version, f"torch is {facts['torch']}, not {release}"
    expected_cuda = None if release.endswith("+cpu") else CUDA_OF.get(version, facts["cuda"])
    assert facts["cuda"] == expected_cuda, f"CUDA is {facts['cuda']}, not {expected_cuda}"
    assert str(interpreter.parent.parent) in facts["file"], f"kvops came from {facts['file']}"
    if expected_cuda and "kvops/_C_cuda.abi3.so" in zipfile.ZipFile(wheel).namelist():
        assert facts["info"]["_C_cuda"].startswith("loaded"), facts["info"]["_C_cuda"]


def run_tests(interpreter: Path, file: str, keyword: str, leak_calls: int) -> dict[str, int]:
    """Run one test file of the checkout against the installed package; count from the report."""
    print(f"{Path(file).stem.removeprefix('test_')}, ", end="", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # The checkout's root stays off sys.path, so `kvops` can only be the installed one.
        command = [interpreter, "-m", "pytest", "-q", "-x", "--override-ini"]
        command += [f"pythonpath={ROOT / 'tests'}", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", f"--rootdir={ROOT}", ROOT / file]
        command += ["-k", keyword] if keyword else []
        environ = os.environ | {"KVOPS_LEAK_CALLS": str(leak_calls), "PYTHONPATH": ""}
        done = subprocess.run(
            [str(part) for part in command], env=environ, cwd=folder, capture_output=True, text=True
        )
        if not report.exists():
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        suite = ElementTree.parse(report).getroot().find("testsuite")
        assert suite is not None
        counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors")}
        skipped = int(suite.get("skipped", 0))
    failed = counts["failures"] + counts["errors"]
    if failed:
        print(done.stdout[-3000:], file=sys.stderr)
    return {
        "passed": counts["tests"] - failed - skipped,
        "failed": failed,
        "skipped": skipped,
    }


def run(command: list[Any], cwd: Path | None = None) -> str:
    """Run a command quietly; its output, or CalledProcessError with it."""
    parts = [str(part) for part in command]
    return subprocess.run(parts, check=True, capture_output=True, text=True, cwd=cwd).stdout


def show(cells: list[dict[str, Any]]) -> None:
    table = Table(title="One wheel, many torches")
    columns = ("torch", "CUDA", "Python", "_C_cuda", "import s", *CHECKS, "result")
    for column in columns:
        table.add_column(column)
    for cell in cells:
        library = cell.get("info", {}).get("_C_cuda", "-").split(",")[0].split(":")[0]
        counts = [f"{cell[name]['passed']} passed" if name in cell else "-" for name in CHECKS]
        table.add_row(
            *[cell["torch"], cell.get("cuda") or "-", cell["python"], library],
            *[str(cell.get("import seconds", "-")), *counts, "ok" if cell["ok"] else "FAILED"],
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
