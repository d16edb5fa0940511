"""Writes reports for people.

What was found is a line of ``path: kind: what`` each, to be searched for; under the verdict of a
library, indented, is what it needs and the table of where it loads.
"""

from __future__ import annotations

from collections.abc import Iterator

from .facts import BUILDS, TORCH_RELEASES
from .matrix import NO
from .model import Finding, Kind, LibraryReport, Verdict, overall
from .phrases import (
    finding_text,
    gpu_text,
    max_torch_text,
    min_torch_text,
    places_text,
    python_text,
    runtime_text,
)
from .source_mode import SourceReport

#: Findings of one kind that are listed unless all are asked for.
SHOWN_OF_A_KIND = 10


def as_text(reports: list[LibraryReport], everything: bool = False) -> Iterator[str]:
    """Lines, never wrapped or coloured; the last is the verdict."""
    for report in reports:
        for line in _library_lines(report, everything):
            yield one_line(f"{report.label}: {line}")
        if report.problem is None:
            for line in _fact_lines(report):
                yield one_line(f"  {line}")
    counts = {v: sum(report.verdict is v for report in reports) for v in Verdict}
    tally = ", ".join(f"{n} {v.value}" for v, n in counts.items() if n)
    yield f"verdict: {overall(reports).value} ({tally})"


def _library_lines(report: LibraryReport, everything: bool) -> Iterator[str]:
    if report.problem is not None:
        yield f"unreadable: {report.problem}"
        return
    yield from _finding_lines(report, everything)
    counts = report.counts
    weak_shims = sum(shim.weak for shim in report.shims)
    yield (
        f"{report.verdict.value}: {counts[Kind.UNDEFINED_UNSTABLE]} undefined and "
        f"{counts[Kind.EXPORTED_UNSTABLE]} exported unstable symbols, "
        f"{len(report.shims)} shims ({weak_shims} weak), "
        f"{counts[Kind.PYTHON_API]} symbols outside the limited API of Python {report.python}, "
        f"needs {', '.join(report.needed) or 'no library'}"
    )


def _fact_lines(report: LibraryReport) -> Iterator[str]:
    yield f"min-torch: {min_torch_text(report)}"
    yield f"max-torch: {max_torch_text(report)}"
    yield f"python: {python_text(report)}"
    yield f"runtime: {runtime_text(report)}"
    gpu = gpu_text(report)
    if gpu is not None:
        yield f"gpu-code: {gpu}"
    for group in report.apis:
        instead = f", use {group.replacement}" if group.replacement else ", no stable replacement"
        yield f"api: {group.api}: {group.undefined} undefined, {group.exported} exported{instead}"
    yield from _matrix_lines(report)


def _finding_lines(report: LibraryReport, everything: bool) -> Iterator[str]:
    shown: dict[Kind, int] = {}
    for finding in report.findings:
        shown[finding.kind] = shown.get(finding.kind, 0) + 1
        if everything or shown[finding.kind] <= SHOWN_OF_A_KIND:
            yield _finding_line(finding)
    for kind, count in shown.items():
        if not everything and count > SHOWN_OF_A_KIND:
            yield f"{kind.value}: and {count - SHOWN_OF_A_KIND} more (--all lists them)"


def _finding_line(finding: Finding) -> str:
    kind = finding.kind.value if finding.violation else f"note: {finding.kind.value}"
    return f"{kind}: {finding_text(finding)}"


def _matrix_lines(report: LibraryReport) -> Iterator[str]:
    """A row per torch; in every column the outcome without and with a driver."""
    cells = {
        (c.environment.torch, c.environment.build, c.environment.driver): c.outcome
        for c in report.cells
    }
    yield "loads on torch" + "".join(f"{build:>16}" for build in BUILDS)
    for torch in TORCH_RELEASES:
        row = f"{torch[0]:>9}.{torch[1]:<4}"
        for build in BUILDS:
            without, with_driver = cells[torch, build, False], cells[torch, build, True]
            text = without if without == with_driver else f"driver: {with_driver}"
            row += f"{text:>16}"
        yield row
    for obstacle in report.obstacles:
        verb = "fails on" if obstacle.outcome == NO else "in doubt on"
        yield f"{verb}: {places_text(obstacle.environments)}: {obstacle.reason}"


def source_text(report: SourceReport) -> Iterator[str]:
    """One line per include line that is left to migrate, then the counts."""
    for include in report.includes:
        units = sum(include in found for found in report.unstable.values())
        yield one_line(f"{include.path}:{include.line}: {include.header} (for {units} units)")
    yield (
        f"source: {len(report.unstable)} of {len(report.units)} translation units include unstable "
        f"headers, through {len(report.includes)} include lines"
    )


def one_line(text: str) -> str:
    """Names come from the file: a newline or an escape sequence in one must not make a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
