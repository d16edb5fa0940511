"""The sentences about a library that texts for people share."""

from __future__ import annotations

from collections.abc import Iterable

from .facts import BUILDS, TORCH_RELEASES
from .matrix import Environment
from .model import Finding, LibraryReport
from .shims import BASELINE_TORCH, NEWEST_TORCH, format_version


def finding_text(finding: Finding) -> str:
    """One finding, without its kind."""
    parts = [finding.display]
    if finding.display != finding.subject and finding.subject.startswith("_Z"):
        parts[0] += f" [{finding.subject}]"
    if finding.weak is not None:
        parts.append("weak" if finding.weak else "hard")
    if finding.detail is not None:
        parts.append(finding.detail)
    return ", ".join(parts)


def min_torch_text(report: LibraryReport) -> str:
    """The oldest torch with all its shims, and which shims decide that."""
    bound = "at least " if report.min_torch_is_lower_bound else ""
    if report.min_torch is None:
        return "unknown, its symbols promise nothing" if bound else "any, it needs no shim"
    version = format_version(report.min_torch)
    if report.min_torch == BASELINE_TORCH:
        return f"{bound}{version} or older"
    return f"{bound}{version}, pinned by {', '.join(report.pinned_by)}"


def max_torch_text(report: LibraryReport) -> str:
    """How far the promise reaches."""
    if any(not shim.weak for shim in report.shims) and not report.min_torch_is_lower_bound:
        return (
            f"its shims are in every torch up to {format_version(NEWEST_TORCH)}, the newest known; "
            "each stays for two years after its release"
        )
    if report.min_torch_is_lower_bound:
        return "none promised, the next release may take its unstable symbols away"
    return "any, it needs nothing of libtorch by name"


def python_text(report: LibraryReport) -> str:
    """Which Pythons can load it."""
    if report.only_python is not None:
        return f"{report.only_python} only"
    if not report.uses_python:
        return "any, it uses no Python API"
    return f"{report.python} and later (limited API)"


def runtime_text(report: LibraryReport) -> str:
    """The C and C++ runtimes it needs, and what decides the glibc."""
    if not report.floors:
        return "any, it asks for no symbol version"
    texts = []
    for floor in report.floors:
        pins = ", ".join(floor.pinned_by[:3]) + (", ..." if len(floor.pinned_by) > 3 else "")
        texts.append(f"{floor.text} ({pins})" if floor.family == "GLIBC" else floor.text)
    return "; ".join(texts)


def gpu_text(report: LibraryReport) -> str | None:
    """The GPU code inside; None where there is none."""
    code = report.contents.gpu_code if report.contents else ()
    sass = [c.architecture for c in code if c.kind == "sass"]
    ptx = [c.architecture for c in code if c.kind == "ptx"]
    parts = ([f"SASS for {' '.join(sass)}"] if sass else []) + (
        [f"PTX for {' '.join(ptx)}"] if ptx else []
    )
    return ", ".join(parts) or None


def places_text(environments: Iterable[Environment]) -> str:
    """A set of environments in words: ``"torch 2.9 to 2.10, cu12"``; "everywhere" for all."""
    found = tuple(environments)
    releases = sorted({e.torch for e in found})
    builds = [build for build in BUILDS if build in {e.build for e in found}]
    drivers = {e.driver for e in found}
    parts = []
    if len(releases) < len(TORCH_RELEASES):
        parts.append("torch " + releases_text(releases))
    if len(builds) < len(BUILDS):
        parts.append(" and ".join(builds))
    if len(drivers) == 1:
        parts.append("with a driver" if True in drivers else "without a driver")
    return ", ".join(parts) or "everywhere"


def releases_text(releases: list[tuple[int, int]]) -> str:
    """``"2.10 to 2.12, 2.15"``"""
    runs: list[list[tuple[int, int]]] = []
    for release in releases:
        position = TORCH_RELEASES.index(release)
        if runs and TORCH_RELEASES.index(runs[-1][-1]) == position - 1:
            runs[-1].append(release)
        else:
            runs.append([release])
    names = [[f"{major}.{minor}" for major, minor in run] for run in runs]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else run[0] for run in names)
