#!/usr/bin/env python3
"""Audits published wheels, and holds the audit against torch-abi-audit and real torches.

    python tools/audit_published_wheels.py [--only NAME ...] [--verify 2.10 --verify 2.13+cpu ...]

Fetches each wheel with pip, one at a time, and removes it afterwards. What --verify gives is tried
with the wheels marked for it. benchmarks/results/audit-wheels.json gets, for every library: counts,
the oldest torch, the predicted matrix, torch-abi-audit's count of the same thing with every symbol
that only one of the two counts, and what was loaded where; with --only, the others are kept, and
without --verify what was loaded earlier.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_abi_audit.inspect import inspect_extension

from abi_audit.checks import audit
from abi_audit.inputs import Artifact, find_artifacts
from abi_audit.model import Kind, LibraryReport
from abi_audit.phrases import places_text
from abi_audit.policy import Policy
from abi_audit.verify import default_python, verify

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks/results/audit-wheels.json"


@dataclass(frozen=True)
class Published:
    """A wheel on PyPI, and whether --verify loads it."""

    requirement: str
    verified: bool = False


WHEELS = (
    Published("vllm==0.21.0"),
    Published("vllm==0.22.0"),
    Published("vllm==0.23.0", verified=True),
    Published("vllm==0.33.0", verified=True),
    Published("torchaudio==2.11.0", verified=True),
    Published("torchcodec==0.17.0", verified=True),
    Published("torchao==0.18.0", verified=True),
    Published("xformers==0.0.35", verified=True),
    Published("lmcache==0.5.6", verified=True),
    Published("sgl-kernel==0.3.21"),
    # FlashAttention itself is on PyPI as source only.
    Published("vllm-flash-attn==2.6.2", verified=True),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="part of a requirement; repeatable")
    parser.add_argument("--verify", action="append", default=[], metavar="TORCH")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"wheels": {}}
    for published in WHEELS:
        name = published.requirement
        if arguments.only and not any(part in name for part in arguments.only):
            continue
        with tempfile.TemporaryDirectory(prefix="kvops-wheels-") as folder:
            try:
                wheel = download(name, Path(folder))
            except subprocess.CalledProcessError as error:
                results["wheels"][name] = {"error": error.stderr.strip().splitlines()[-1]}
                print(f"{name}: could not be fetched")
                continue
            cells = arguments.verify if published.verified else []
            result = examine(wheel, cells)
            if not cells:
                keep_verified(results["wheels"].get(name, {}), result)
            results["wheels"][name] = result
        print(f"{name}: {summary(results['wheels'][name])}", flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def keep_verified(earlier: dict[str, Any], result: dict[str, Any]) -> None:
    """What was loaded where stays true for the same file."""
    if earlier.get("sha256") == result["sha256"]:
        for key, library in result["libraries"].items():
            if "verified" in earlier["libraries"].get(key, {}):
                library["verified"] = earlier["libraries"][key]["verified"]


def download(requirement: str, folder: Path) -> Path:
    """The wheel for this machine's Python, as pip would install it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("*.whl"))


def examine(wheel: Path, cells: list[str]) -> dict[str, Any]:
    """Audit one wheel and compare; times are of this audit alone."""
    start = time.monotonic()
    artifacts = list(find_artifacts(wheel))
    reports = audit(artifacts, Policy())
    seconds = time.monotonic() - start
    libraries = {
        report.key: describe(artifact, report)
        for artifact, report in zip(artifacts, reports, strict=True)
    }
    attempts = list(verify(artifacts, reports, cells, default_python())) if cells else []
    for attempt in attempts:
        libraries[attempt.key].setdefault("verified", []).append(
            {
                "torch": attempt.torch,
                "driver": attempt.environment.driver,
                "predicted": attempt.predicted,
                "loaded": attempt.loaded,
                "agrees": attempt.agrees,
                "error": attempt.error,
                "borrowed": list(attempt.borrowed),
            }
        )
    return {
        "file": wheel.name,
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "bytes": wheel.stat().st_size,
        "audit seconds": round(seconds, 2),
        "libraries": libraries,
    }


def describe(artifact: Artifact, report: LibraryReport) -> dict[str, Any]:
    """One library: what was found, where it loads, and what torch-abi-audit counts."""
    if report.problem is not None:
        return {"problem": report.problem}
    contents = report.contents
    loads = [c.environment for c in report.cells if c.outcome == "yes"]
    return {
        "violations": {
            kind.value: count
            for kind, count in Counter(f.kind for f in report.findings if f.violation).items()
        },
        "min_torch": ".".join(map(str, report.min_torch)) if report.min_torch else None,
        "only_python": report.only_python,
        "string_leaks": contents.string_leaks if contents else None,
        "gpu_code": [c.architecture for c in contents.gpu_code] if contents else [],
        "glibc": next((f.text for f in report.floors if f.family == "GLIBC"), None),
        "loads": places_text(loads) if loads else "nowhere for certain",
        "obstacles": [f"{places_text(o.environments)}: {o.reason}" for o in report.obstacles],
        "torch-abi-audit": compare(artifact, report),
    }


def compare(artifact: Artifact, report: LibraryReport) -> dict[str, Any]:
    """torch-abi-audit's count of undefined unstable symbols, and what only one of us counts."""
    with tempfile.TemporaryDirectory() as folder, artifact.open() as stream:
        file = Path(folder) / artifact.name
        file.write_bytes(stream.read())
        verdict = inspect_extension(file).torch
    undefined = [f for f in report.findings if f.kind is Kind.UNDEFINED_UNSTABLE]
    ours, theirs = Counter(f.display for f in undefined), Counter(verdict.unstable_symbols)
    return {
        "unstable": len(verdict.unstable_symbols),
        "ours": len(undefined),
        "min_torch": verdict.min_torch_version,
        "only we count": sorted((ours - theirs).elements()),
        "only it counts": sorted((theirs - ours).elements()),
    }


def summary(result: dict[str, Any]) -> str:
    libraries = [entry for entry in result["libraries"].values() if "problem" not in entry]
    equal = sum(e["torch-abi-audit"]["unstable"] == e["torch-abi-audit"]["ours"] for e in libraries)
    attempts = [a for entry in libraries for a in entry.get("verified", [])]
    agreed = Counter(
        {True: "agree", False: "DISAGREE", None: "open"}[a["agrees"]] for a in attempts
    )
    return (
        f"{len(libraries)} libraries in {result['audit seconds']} s, {equal} counts equal to "
        f"torch-abi-audit's, verified: {dict(agreed)}"
    )


if __name__ == "__main__":
    sys.exit(main())
