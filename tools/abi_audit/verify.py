"""Really loads libraries beside real torches, and compares with the prediction.

For every torch asked for, an environment is made (by uv where there is one), torch is installed
into it, and each library is opened in a process of its own, forked after `import torch`, with the
flags that `torch.ops.load_library` and Python's own import use. Nothing of the library is called.
LD_LIBRARY_PATH is not passed on: it would show what this machine has, not what torch brings.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .facts import BUILDS, PATCH_RELEASES, builds_with
from .inputs import Artifact
from .matrix import NO, UNKNOWN, YES, Environment
from .model import LibraryReport

_ABOUT = """
import ctypes, json, platform, torch
try:
    ctypes.CDLL("libcuda.so.1"); driver = True
except OSError:
    driver = False
print(json.dumps([torch.__version__, torch.version.cuda, driver, platform.python_version()]))
"""

# One import of torch, then a process for each list of files; the last of a list is the library in
# question, those before it come with it, as in a package that has them beside each other.
_LOAD = """
import ctypes, json, os, sys, torch
def mapped():
    with open("/proc/self/maps") as maps:
        return {line.split(maxsplit=5)[-1].strip() for line in maps if ".so" in line}
for paths in json.load(sys.stdin):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        before, error = mapped(), None
        try:
            for path in paths:
                ctypes.CDLL(path)
        except OSError as failure:
            error = str(failure)
        answer = json.dumps({"error": error, "mapped": sorted(mapped() - before)})
        os.write(writer, answer.encode()[:60000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        text = result.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([status, text]), flush=True)
"""


class CannotVerify(Exception):
    """An environment could not be made; the message says which and why."""


@dataclass(frozen=True)
class Attempt:
    """One library in one environment."""

    key: str
    torch: str
    python: str
    environment: Environment
    predicted: str
    loaded: bool
    #: The loader's own words.
    error: str | None
    #: CUDA libraries that this machine has installed, and that torch did not bring.
    borrowed: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool | None:
        """Whether it went as predicted; None where this machine cannot tell."""
        if self.predicted == UNKNOWN or (self.borrowed and self.predicted == NO and self.loaded):
            return None
        return self.loaded == (self.predicted == YES)

    def __str__(self) -> str:
        outcome = "loaded" if self.loaded else f"did not load ({self.error})"
        if self.borrowed and self.loaded:
            outcome = f"loaded with this machine's own {', '.join(self.borrowed)}"
        answer = {True: "as predicted", False: "NOT AS PREDICTED", None: "which proves nothing"}
        driver = "with" if self.environment.driver else "without"
        place = f"torch {self.torch}, Python {self.python}, {driver} a driver"
        return f"verify: {place}: {self.key}: {outcome}, {answer[self.agrees]}"


def verify(
    artifacts: list[Artifact], reports: list[LibraryReport], cells: list[str], python: str
) -> Iterator[Attempt]:
    """Load every library in every cell ("2.10", "2.13+cpu").

    Raises:
        CannotVerify: an environment could not be made.
    """
    with tempfile.TemporaryDirectory(prefix="kvops-audit-") as folder:
        files = _unpack(artifacts, Path(folder))
        for cell in cells:
            with _environment(cell, python) as interpreter:
                yield from _attempts(interpreter, artifacts, reports, files)


def parse_cell(text: str) -> str:
    """``"2.10"``, ``"2.13+cpu"`` or ``"2.13+cu126"``, as it was given."""
    match = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?(\+cpu|\+cu\d{3})?", text)
    if match is None or (int(match[1]), int(match[2])) not in PATCH_RELEASES:
        known = ", ".join(f"{major}.{minor}" for major, minor in PATCH_RELEASES)
        raise ValueError(
            f"not a known torch: {text!r} (known: {known}; a build as in +cpu may follow)"
        )
    return text


def _attempts(
    interpreter: Path, artifacts: list[Artifact], reports: list[LibraryReport], files: list[Path]
) -> Iterator[Attempt]:
    version, cuda, driver, python = json.loads(
        _run([interpreter, "-I", "-c", _ABOUT], _loader_environment())
    )
    release = (int(version.split(".")[0]), int(version.split(".")[1]))
    build = f"cu{cuda.split('.')[0]}" if cuda else "cpu"
    if build not in BUILDS:
        raise CannotVerify(f"torch {version} is built for CUDA {cuda}, which is not predicted for")
    environment = Environment(release, build, driver)
    by_name = {(a.group, a.name): f for a, f in zip(artifacts, files, strict=True)}
    tried, lists = [], []
    for artifact, report, file in zip(artifacts, reports, files, strict=True):
        only = report.only_python
        if report.problem is not None or (only and not python.startswith(f"{only}.")):
            continue
        beside = reversed(_bundled(report, artifact, reports, artifacts))
        tried.append(report)
        lists.append([*(str(by_name[artifact.group, name]) for name in beside), str(file)])
    if not tried:
        wanted = {report.only_python for report in reports if report.only_python} or {"none"}
        raise CannotVerify(
            f"nothing here can be loaded by Python {python} (--python: {', '.join(sorted(wanted))})"
        )
    for report, (error, borrowed) in zip(tried, _load(interpreter, lists), strict=True):
        predicted = next(c.outcome for c in report.cells if c.environment == environment)
        loaded = error is None
        yield Attempt(report.key, version, python, environment, predicted, loaded, error, borrowed)


def _load(interpreter: Path, lists: list[list[str]]) -> list[tuple[str | None, tuple[str, ...]]]:
    """For each list of files the loader's complaint (None: loaded), and what was borrowed."""
    done = subprocess.run(
        [str(interpreter), "-I", "-c", _LOAD],
        input=json.dumps(lists),
        env=_loader_environment(),
        capture_output=True,
        text=True,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    if len(results) != len(lists):
        raise CannotVerify(f"the process that loads stopped: {done.stderr.strip()[-500:]}")
    return [_outcome(status, text, interpreter.parent.parent) for status, text in results]


def _outcome(status: int, text: str, prefix: Path) -> tuple[str | None, tuple[str, ...]]:
    if status != 0:
        return f"killed by signal {-status}", ()
    answer = json.loads(text)
    borrowed = (
        path
        for path in answer["mapped"]
        if builds_with(_soname(path)) is not None and not Path(path).is_relative_to(prefix)
    )
    return answer["error"], tuple(borrowed)


def _soname(path: str) -> str:
    """What a file is known as to the loader: ``libx.so.13`` for ``libx.so.13.0.96``."""
    name, dot_so, version = Path(path).name.partition(".so")
    return name + dot_so + ".".join(version.split(".")[:2])


def _bundled(
    report: LibraryReport,
    artifact: Artifact,
    reports: list[LibraryReport],
    artifacts: list[Artifact],
) -> list[str]:
    """The libraries beside this one that it needs, those that others need last."""
    group = {
        a.name: r
        for a, r in zip(artifacts, reports, strict=True)
        if a.group == artifact.group and r is not report
    }
    found: list[str] = []
    waiting = list(report.needed)
    while waiting:
        name = waiting.pop(0)
        if name in group:
            found = [n for n in found if n != name] + [name]
            waiting += [n for n in group[name].needed if n not in found]
    return found


def _unpack(artifacts: list[Artifact], folder: Path) -> list[Path]:
    """Where each library lies as a file; a wheel's stay where they are relative to each other."""
    places: dict[Path, Path] = {}
    files = []
    for artifact in artifacts:
        if artifact.member is None:
            files.append(artifact.path)
            continue
        if artifact.path not in places:
            places[artifact.path] = folder / str(len(places))
            with zipfile.ZipFile(artifact.path) as wheel:
                wanted = [a.member for a in artifacts if a.path == artifact.path and a.member]
                wheel.extractall(places[artifact.path], wanted)
        files.append(places[artifact.path] / artifact.member)
    return files


@contextmanager
def _environment(cell: str, python: str) -> Iterator[Path]:
    """A fresh virtual environment with one torch; gone afterwards."""
    release, _, build = cell.partition("+")
    major, minor, *patch = release.split(".")
    version = release if patch else PATCH_RELEASES[int(major), int(minor)]
    requirement = f"torch=={version}" + (f"+{build}" if build else "")
    folder = Path(tempfile.mkdtemp(prefix="kvops-audit-env-"))
    interpreter = folder / "env" / "bin" / "python"
    try:
        # Local indexes with +cpu builds are set up for pip.
        if shutil.which("uv") and not build:
            _run(["uv", "venv", "--quiet", "--python", python, folder / "env"])
            _run(["uv", "pip", "install", "--quiet", "--python", interpreter, requirement])
        else:
            _run([_found(python), "-m", "venv", folder / "env"])
            _run([interpreter, "-m", "pip", "install", "--quiet", requirement])
        yield interpreter
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().splitlines()[-1:] or ["no message"]
        raise CannotVerify(f"no environment with {requirement}: {reason[0]}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(python: str) -> str:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return sys.executable if python == here else f"python{python}"


def default_python() -> str:
    """The Python of this process, "3.12"."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _loader_environment() -> dict[str, str]:
    """This process's environment without what redirects the dynamic loader."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LD_")}


def _run(command: list[object], environment: dict[str, str] | None = None) -> str:
    parts = [str(part) for part in command]
    done = subprocess.run(parts, env=environment, check=True, capture_output=True, text=True)
    return done.stdout
