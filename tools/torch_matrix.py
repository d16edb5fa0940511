"""Installs one wheel beside many torches and Pythons and runs the same checks in each.

    python tools/torch_matrix.py WHEEL [--torch 2.10.0 --torch 2.13.0+cpu ...]
                                       [--python 3.10 --python 3.13 ...] [--quick] [--json FILE]

Each cell is a fresh environment (made by uv, removed afterwards, one at a time: a CUDA build of
torch takes 5 GB): torch, the wheel, and the test files' own needs. In it are run, from outside of
the checkout's packages: the import, the recorded calls, and unless --quick every operator against
the reference and thousands of calls of each for leaks. A cell also asserts that torch is the
release and the CUDA build that its name says. The table and the JSON hold what was run and nothing
else; an existing JSON of the same wheel keeps the cells that are not run anew.

A Python is found on PATH (python3.13); 3.14t is a free-threaded one, for which the wheel gets
another tag. What PyPI does not have comes through pip, which must be able to find it: builds with
a local version (2.13.0+cpu: PIP_EXTRA_INDEX_URL) and `nightly` (PIP_INDEX_URL).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
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
# Torches that were never published for a Python: an answer, not a failure.
NO_WHEEL = {("2.15.0", "3.10")}
NEEDS = ("numpy", "pytest", "pytest-timeout", "hypothesis", "expecttest", "setuptools", "wheel")
CHECKS = {
    "recorded calls": ("tests/test_golden.py", "cpu and not reference"),
    "operators": ("tests/test_operators.py", "cpu"),
    "leaks": ("tests/test_leaks.py", ""),
}
QUICK = ("recorded calls",)
PROBE = """
import json, sys, sysconfig, time
start = time.monotonic()
import torch
after_torch = time.monotonic()
import kvops
done = time.monotonic()
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "info": kvops.info(),
                  "python": "%d.%d" % sys.version_info[:2]
                  + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
                  "file": kvops.__file__, "import seconds": round(done - after_torch, 3)}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", action="append", help=f"default: {' '.join(TORCHES)}")
    parser.add_argument("--python", action="append", help="default: the one that runs this")
    parser.add_argument("--quick", action="store_true", help=f"only: {', '.join(QUICK)}")
    parser.add_argument("--json", type=Path, help="write the results there")
    arguments = parser.parse_args()
    wheel = arguments.wheel.resolve()
    if not wheel.exists():
        parser.error(f"no such wheel: {wheel}")
    pythons = arguments.python or [f"{sys.version_info[0]}.{sys.version_info[1]}"]
    for python in pythons:
        if subprocess.run(["uv", "python", "find", "--quiet", python]).returncode:
            parser.error(f"there is no Python {python} on PATH")
    checks = QUICK if arguments.quick else tuple(CHECKS)
    cells = []
    for release in arguments.torch or TORCHES:
        for python in pythons:
            print(f"torch {release}, Python {python}: ", end="", flush=True)
            cell = run_cell(wheel, release, python, checks)
            print(cell["no wheel"] or ("ok" if cell["ok"] else f"FAILED: {cell['error']}"))
            cells.append(cell)
            if arguments.json:
                write_results(arguments.json, wheel, cells)
    show(cells)
    answered = all(cell["ok"] or cell["no wheel"] for cell in cells)
    return 0 if answered and any(cell["ok"] for cell in cells) else 1


def write_results(file: Path, wheel: Path, cells: list[dict[str, Any]]) -> None:
    """Write the cells, and keep those of earlier runs with the same bytes of a wheel.

    A torch that could not be installed says nothing about the wheel and is left out.
    """
    result = {
        "wheel": wheel.name,
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "machine": platform.machine(),
    }
    earlier = json.loads(file.read_text()) if file.exists() else {}
    kept = earlier["cells"] if earlier.get("sha256") == result["sha256"] else []
    new = {(cell["torch"], cell["python"]) for cell in cells}
    kept = [cell for cell in kept if (cell["torch"], cell["python"]) not in new]
    cells = [cell for cell in cells if cell["installed"] or cell["no wheel"]]
    file.write_text(json.dumps({**result, "cells": [*kept, *cells]}, indent=2) + "\n")


def run_cell(wheel: Path, release: str, python: str, checks: tuple[str, ...]) -> dict[str, Any]:
    """One torch: install, probe, check. Never raises for what the cell itself does wrong."""
    cell: dict[str, Any] = {
        **{"torch": release, "python": python, "ok": False, "error": None, "no wheel": None},
        "installed": False,
    }
    if (release, python) in NO_WHEEL:
        cell["no wheel"] = f"torch {release} was not published for Python {python}"
        return cell
    start = time.monotonic()
    try:
        with environment(python) as interpreter:
            install_torch(interpreter, release)
            cell["installed"] = True
            install_wheel(interpreter, wheel, python)
            cell["install seconds"] = round(time.monotonic() - start)
            probe(interpreter, release, python, wheel, cell)
            for name in checks:
                cell[name] = run_tests(interpreter, *CHECKS[name])
                if cell[name]["failed"] or not cell[name]["passed"]:
                    cell["error"] = f"{name}: {cell[name]}"
                    return cell
    except (AssertionError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or getattr(error, "output", None) or ""
        cell["error"] = f"{error} {output[-2000:]}".strip()
        if not cell["installed"] and not_published(release, output):
            cell["no wheel"] = f"torch {release} was not published for Python {python}"
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


def install_torch(interpreter: Path, release: str) -> None:
    print("installing, ", end="", flush=True)
    if release.startswith("nightly"):
        run([interpreter, "-m", "pip", "install", "--quiet", "--pre", "torch"])
    elif "+" in release:
        run([interpreter, "-m", "pip", "install", "--quiet", f"torch=={release}"])
    else:
        run([*uv_install(interpreter), f"torch=={release}"])


def not_published(release: str, output: str) -> bool:
    """Whether pip has read the index of this build, and other releases of it were there."""
    build = release.partition("+")[2]
    offered = re.search(r"\(from versions: ([^)]*)\)", output)
    return bool(build and offered and re.search(rf"\+{build}\b", offered.group(1)))


def install_wheel(interpreter: Path, wheel: Path, python: str) -> None:
    run([*uv_install(interpreter), *NEEDS])
    with tempfile.TemporaryDirectory() as folder:
        if python.endswith("t"):
            wheel = free_threaded(interpreter, wheel, Path(folder), python)
        # --no-deps: installing kvops must not be what changes torch.
        run([*uv_install(interpreter), "--no-deps", wheel])


def uv_install(interpreter: Path) -> list[Any]:
    return ["uv", "pip", "install", "--quiet", "--python", interpreter]


def free_threaded(interpreter: Path, wheel: Path, folder: Path, python: str) -> Path:
    """The same files under a tag that a free-threaded Python accepts: it takes no abi3.

    Nothing in them uses Python's C API, which is all that the abi3 tag is about.
    """
    copy = Path(shutil.copy(wheel, folder))
    tag = "cp" + python.removesuffix("t").replace(".", "")
    tags = ["--python-tag", tag, "--abi-tag", f"{tag}t"]
    run([interpreter, "-m", "wheel", "tags", "--remove", *tags, copy])
    return next(folder.glob("*.whl"))


def probe(interpreter: Path, release: str, python: str, wheel: Path, cell: dict[str, Any]) -> None:
    """Import kvops and assert that this is the torch and the kvops that we think it is."""
    print("importing, ", end="", flush=True)
    # Not from the checkout: the installed package must be the one that is imported.
    printed = run([interpreter, "-I", "-c", PROBE], cwd=interpreter.parent).strip()
    facts = json.loads(printed.splitlines()[-1])
    facts["info"].pop("operators")  # the same in every cell, and long
    cell.update(cuda=facts["cuda"], info=facts["info"])
    cell["import seconds"] = facts["import seconds"]
    version = release.split("+")[0]
    found = facts["torch"].split("+")[0]
    assert found == version or (version == "nightly" and ".dev" in found), (
        f"torch is {facts['torch']}, not {release}"
    )
    expected_cuda = cuda_of(release, facts["cuda"])
    assert facts["cuda"] == expected_cuda, f"CUDA is {facts['cuda']}, not {expected_cuda}"
    assert facts["python"] == python, f"Python is {facts['python']}, not {python}"
    assert str(interpreter.parent.parent) in facts["file"], f"kvops came from {facts['file']}"
    if expected_cuda and "kvops/_C_cuda.abi3.so" in zipfile.ZipFile(wheel).namelist():
        assert facts["info"]["_C_cuda"].startswith("loaded"), facts["info"]["_C_cuda"]


def cuda_of(release: str, otherwise: str | None) -> str | None:
    """The CUDA that a build of torch must report: "2.13.0+cu126" -> "12.6", "+cpu" -> None."""
    version, _, build = release.partition("+")
    if re.fullmatch(r"cu\d+", build):
        digits = build.removeprefix("cu")
        return f"{digits[:-1]}.{digits[-1]}"
    return None if build == "cpu" else CUDA_OF.get(version, otherwise)


def run_tests(interpreter: Path, file: str, keyword: str) -> dict[str, int]:
    """Run one test file of the checkout against the installed package; count from the report."""
    print(f"{Path(file).stem.removeprefix('test_')}, ", end="", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # The checkout's root stays off sys.path, so `kvops` can only be the installed one.
        command = [interpreter, "-m", "pytest", "-q", "-x", "--override-ini"]
        command += [f"pythonpath={ROOT / 'tests'}", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", f"--rootdir={ROOT}", ROOT / file]
        command += ["-k", keyword] if keyword else []
        environ = os.environ | {"PYTHONPATH": ""}
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
        result = "no wheel" if cell["no wheel"] else "ok" if cell["ok"] else "FAILED"
        table.add_row(
            *[cell["torch"], cell.get("cuda") or "-", cell["python"], library],
            *[str(cell.get("import seconds", "-")), *counts, result],
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
