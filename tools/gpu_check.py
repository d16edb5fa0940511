"""Everything that a machine with a GPU has to say about a wheel, in parts that end within minutes.

    python tools/gpu_check.py WHEEL --json OUT [--part suite] [--part memcheck] ...

Installs the wheel into a fresh folder, runs the parts against that (all by default) with the torch
of this Python, and merges their results into OUT. Needs what `pip install --group test` installs,
and compute-sanitizer (of any CUDA toolkit) for the parts that are named after its tools.
`--part suite:2/3` runs the second third of a pytest part, for machines that are lent in minutes.

Ends with 1 if anything failed. Results of another wheel, commit or machine in OUT are dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
Result = dict[str, Any]
# Of a part that took too long: pytest-xdist waits 10 seconds for a worker that hangs, then reports.
SECONDS_TO_REPORT = 30

PROBE = """
import json, torch, kvops
if not torch.cuda.is_available():
    raise SystemExit("torch sees no CUDA device")
print(json.dumps({"gpu": torch.cuda.get_device_name(0), "gpus": torch.cuda.device_count(),
                  "torch": torch.__version__, "cuda": torch.version.cuda, "info": kvops.info(),
                  "file": kvops.__file__}))
"""
_SUMMARY = re.compile(
    r"ERROR SUMMARY: (?P<errors>\d+) errors?$|"
    r"RACECHECK SUMMARY: (?P<hazards>\d+) hazards? displayed \((?P<race_errors>\d+) error",
    re.MULTILINE,
)


@dataclass(frozen=True)
class PytestPart:
    """Files of the suite, run by pytest."""

    paths: tuple[str, ...]
    without: tuple[str, ...] = ()
    workers: str = "auto"
    test_seconds: int = 600  # a test that takes longer has failed

    def files(self, shard: str | None) -> list[Path]:
        """The test files; `shard` "i/n" is the i-th of n parts, by every n-th file."""
        without = {file for path in self.without for file in test_files(path)}
        found = [file for path in self.paths for file in test_files(path) if file not in without]
        if shard is None:
            return found
        number, parts = map(int, shard.split("/"))
        return found[number - 1 :: parts]


@dataclass(frozen=True)
class SanitizerPart:
    """A script under a tool of compute-sanitizer."""

    tool: str
    script: str
    arguments: tuple[str, ...] = ()
    finds_errors: bool = False  # planted ones, to show that the tool looks where it should


_APART = (
    "tests/test_golden.py",
    "tests/cuda/test_cpu_cuda_agree.py",
    "tests/cuda/test_large_offsets.py",
    "tests/cuda/test_hostile_memcheck.py",
    "tests/vllm_grids",
    "tests/sglang_grids",
)
_EVERY, _PLANTED = "tests/cuda/every_kernel.py", "tests/cuda/planted_errors.py"
PARTS: dict[str, PytestPart | SanitizerPart] = {
    "golden": PytestPart(("tests/test_golden.py",)),
    "suite": PytestPart(("tests",), without=_APART, test_seconds=120),
    "random": PytestPart(("tests/cuda/test_cpu_cuda_agree.py",)),
    "large": PytestPart(("tests/cuda/test_large_offsets.py",), workers="2"),
    "grids": PytestPart(
        ("tests/vllm_grids", "tests/sglang_grids"), workers="4"
    ),  # gigabytes for each
    "hostile": SanitizerPart("memcheck", "tests/cuda/hostile_script.py"),
    "memcheck": SanitizerPart("memcheck", _EVERY),
    "initcheck": SanitizerPart("initcheck", _EVERY),
    "racecheck": SanitizerPart("racecheck", _EVERY),
    "synccheck": SanitizerPart("synccheck", _EVERY),
    "planted-memcheck": SanitizerPart("memcheck", _PLANTED, ("memcheck",), finds_errors=True),
    "planted-initcheck": SanitizerPart("initcheck", _PLANTED, ("initcheck",), finds_errors=True),
}


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="kvops-gpu-check-") as name:
        folder = Path(name)
        install(arguments.wheel, folder / "site")
        environ = environment(folder / "site", arguments.seed)
        report = facts(arguments, folder, environ)
        report["parts"] = earlier_parts(arguments.json, report)
        results = {}
        for part in arguments.part or PARTS:
            print(f"\n== {part}", flush=True)
            results[part] = run_part(part, folder, environ, arguments.timeout, arguments.pytest)
            print(f"-- {part}: {in_words(results[part])}", flush=True)
            report["parts"][part] = results[part]
            if arguments.json:  # after each part: this machine may be taken away
                arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{report['gpu']}, driver {report['driver']}, torch {report['torch']}")
    for part, result in results.items():
        print(f"{part:20} {in_words(result)}")
    return 0 if all(result["ok"] for result in results.values()) else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--part", action="append", help=f"of {' '.join(PARTS)}; default: all")
    parser.add_argument("--json", type=Path, help="merge the results into this file")
    parser.add_argument("--commit", help="of the wheel; default: of this checkout")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for a part")
    parser.add_argument("--pytest", action="append", default=[], help="one more option for pytest")
    arguments = parser.parse_args()
    arguments.wheel = arguments.wheel.resolve()
    if not arguments.wheel.exists():
        parser.error(f"no such wheel: {arguments.wheel}")
    for part in arguments.part or ():
        if part.split(":")[0] not in PARTS:
            parser.error(f"no such part: {part}")
    return arguments


def install(wheel: Path, target: Path) -> None:
    options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", target, wheel]
    subprocess.run(list(map(str, command)), check=True)


def environment(site: Path, seed: int) -> dict[str, str]:
    """kvops is found in `site` only: nothing runs in the checkout or has it on its path."""
    required = {"KVOPS_REQUIRE_CUDA": "1", "KVOPS_SEED": str(seed)}
    return os.environ | required | {"PYTHONPATH": str(site), "PYTHONUNBUFFERED": "1"}


def facts(arguments: argparse.Namespace, folder: Path, environ: dict[str, str]) -> Result:
    printed = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=environ,
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(printed.stdout.splitlines()[-1])
    file = Path(found.pop("file"))
    if not file.is_relative_to(folder):
        raise SystemExit(f"kvops was imported from {file}, not from the wheel")
    return {
        "commit": arguments.commit or command_output("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "wheel": arguments.wheel.name,
        "wheel_sha256": hashlib.sha256(arguments.wheel.read_bytes()).hexdigest(),
        "driver": command_output(
            "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"
        ),
        "python": sys.version.split()[0],
        **found,
    }


def command_output(*command: str) -> str | None:
    """What a command prints, None if it fails or is missing."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def earlier_parts(file: Path | None, report: Result) -> Result:
    """Results of earlier runs, if they are of the same wheel on the same kind of machine."""
    if file is None or not file.exists():
        return {}
    earlier = json.loads(file.read_text())
    for name in ("commit", "wheel_sha256", "gpu", "driver", "torch"):
        if earlier.get(name) != report[name]:
            print(f"{file}: its results are dropped, {name} was {earlier.get(name)}")
            return {}
    return earlier["parts"]


def run_part(
    name: str, folder: Path, environ: dict[str, str], timeout: float, options: list[str]
) -> Result:
    base, _, shard = name.partition(":")
    part = PARTS[base]
    start = time.monotonic()
    try:
        if isinstance(part, PytestPart):
            result = run_tests(part, shard or None, folder, environ, timeout, options)
        else:
            result = run_sanitizer(part, folder, environ, timeout)
    except OSError as error:  # no such program
        result = {"ok": False, "error": str(error)}
    return result | {"seconds": round(time.monotonic() - start)}


def run_tests(
    part: PytestPart,
    shard: str | None,
    folder: Path,
    environ: dict[str, str],
    timeout: float,
    options: list[str],
) -> Result:
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-n", part.workers, "-p", "no:cacheprovider"]
    command += ["--maxfail=200", "--tb=short", f"--rootdir={ROOT}", f"-c{ROOT / 'pyproject.toml'}"]
    # Where a test hangs pytest shows by itself. pytest-timeout, if it is installed, ends the test:
    # by its thread, because no signal gets through to Python while native code waits for a GPU.
    for setting in ("faulthandler_timeout", "timeout"):
        command += ["-o", f"{setting}={part.test_seconds}"]
    command += ["-o", "timeout_method=thread"]
    command += [f"--junitxml={report}", *options, *map(str, part.files(shard))]
    code, tail = run(command, folder, environ, timeout)
    counts = junit_counts(report) if report.exists() else {"error": "\n".join(tail)}
    more: Result = {"seed": int(environ["KVOPS_SEED"])}
    if "-k" in options:  # as `--pytest=-k --pytest=NAMES`: not everything was asked for
        more["selected"] = options[options.index("-k") + 1]
    return {"ok": code == 0 and "error" not in counts, "exit_code": code, **counts, **more}


def test_files(path: str) -> list[Path]:
    """Every test file at or below a path of the checkout."""
    found = ROOT / path
    return [found] if found.is_file() else sorted(found.rglob("test_*.py"))


def junit_counts(report: Path) -> Result:
    """Counts of a report of pytest, and the names of what failed."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total = {
        name: sum(int(suite.get(name, 0)) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    failed = total["failures"] + total["errors"]
    names = [
        f"{test.get('classname')}::{test.get('name')}"
        for suite in suites
        for test in suite.iter("testcase")
        if test.find("failure") is not None or test.find("error") is not None
    ]
    reasons: dict[str, int] = {}
    for skip in (skip for suite in suites for skip in suite.iter("skipped")):
        reason = skip.get("message", "")
        reasons[reason] = reasons.get(reason, 0) + 1
    return {
        "passed": total["tests"] - failed - total["skipped"],
        "failed": failed,
        "skipped": total["skipped"],
        "failures": names[:100],
        "skip_reasons": reasons,
    }


def run_sanitizer(
    part: SanitizerPart, folder: Path, environ: dict[str, str], timeout: float
) -> Result:
    # Without torch's cache, every tensor is an allocation of its own.
    environ = environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    if part.tool == "initcheck":  # docs/paged_attention.md says why
        environ |= {"KVOPS_CLEAR_WORKSPACE": "1"}
    code, tail = run(sanitizer_command(part), folder, environ, timeout)
    errors, summary = sanitizer_summary("\n".join(tail))
    is_right = errors is not None and (errors > 0) == part.finds_errors
    ok = is_right and (part.finds_errors or code == 0)
    return {"ok": ok, "exit_code": code, "tool": part.tool, "errors": errors, "summary": summary}


def sanitizer_command(part: SanitizerPart) -> list[str]:
    found = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    command = [found, "--tool", part.tool, "--error-exitcode", "9", "--print-limit", "20"]
    if part.tool == "memcheck":
        # torch asks about pointers that are not the driver's and expects to be told so.
        command += ["--report-api-errors", "no"]
    if part.tool != "initcheck":
        # Our kernels only: many times faster. initcheck must see who else writes memory.
        command += ["--kernel-name", "kns=kvops"]
    return [*command, sys.executable, str(ROOT / part.script), *part.arguments]


def sanitizer_summary(output: str) -> tuple[int | None, str | None]:
    """How many errors compute-sanitizer counts, None if it never came to it; and its last line."""
    matches = list(_SUMMARY.finditer(output))
    if not matches:
        return None, None
    match = matches[-1]
    line = output[match.start() :].splitlines()[0]
    return int(match["errors"] or match["hazards"] or 0), line


def run(
    command: list[str], folder: Path, environ: dict[str, str], timeout: float
) -> tuple[int, list[str]]:
    """Run a command and show what it prints; its exit status and its last lines."""
    tail: deque[str] = deque(maxlen=400)
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        # A shell starts what is in the background with interrupts ignored, and stop() needs them.
        preexec_fn=restore_interrupts,
    )
    timer = threading.Timer(timeout, stop, [process])
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            tail.append(line.rstrip("\n"))
        return process.wait(), list(tail)
    finally:
        timer.cancel()


def restore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop(process: subprocess.Popen[str]) -> None:
    """Interrupt pytest, which then reports what it has; end the whole session: its workers, too."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_REPORT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def in_words(result: Result) -> str:
    if "passed" in result:
        counts = ", ".join(f"{result[name]} {name}" for name in ("passed", "failed", "skipped"))
    else:
        counts = result.get("summary") or result.get("error") or "no summary"
    return f"{'ok' if result['ok'] else 'FAILED'}: {counts} ({result['seconds']} s)"


if __name__ == "__main__":
    sys.exit(main())
