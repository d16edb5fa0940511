"""Writes a summary in Markdown, for GITHUB_STEP_SUMMARY or a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .facts import BUILDS, TORCH_RELEASES
from .model import Kind, LibraryReport, overall
from .phrases import min_torch_text, places_text, python_text, releases_text
from .source_mode import SourceReport

_MARKS = {"yes": "✅", "no": "❌", "unknown": "❓"}


def as_markdown(reports: list[LibraryReport]) -> str:
    """A table of all libraries, then what each one loads on."""
    lines = [
        f"### Stable ABI: {overall(reports).value}",
        "",
        "| library | verdict | unstable, needed | unstable, exported | other violations "
        "| oldest torch | Python |",
        "|---|---|---:|---:|---|---|---|",
        *(_row(report) for report in reports),
        "",
    ]
    for report in reports:
        if report.problem is None:
            lines += _load_table(report)
    return "\n".join(lines) + "\n"


def source_markdown(report: SourceReport) -> str:
    """What is left to migrate, as a table."""
    lines = [
        f"### Left to migrate: {len(report.unstable)} of {len(report.units)} translation units",
        "",
        "| file | line | header | units |",
        "|---|---:|---|---:|",
    ]
    for include in report.includes:
        units = sum(include in found for found in report.unstable.values())
        place = f"{_code(str(include.path))} | {include.line or ''}"
        lines.append(f"| {place} | {_code(include.header)} | {units} |")
    return "\n".join(lines) + "\n"


def _row(report: LibraryReport) -> str:
    if report.problem is not None:
        cells = [_code(report.label), report.verdict.value, "", "", _text(report.problem), "", ""]
        return f"| {' | '.join(cells)} |"
    counts = Counter(f.kind for f in report.findings if f.violation)
    undefined = counts.pop(Kind.UNDEFINED_UNSTABLE, 0)
    exported = counts.pop(Kind.EXPORTED_UNSTABLE, 0)
    others = ", ".join(f"{count} {kind.value}" for kind, count in counts.items())
    cells = [_code(report.label), report.verdict.value, str(undefined), str(exported), others]
    cells += [_text(min_torch_text(report).partition(",")[0]), python_text(report)]
    return f"| {' | '.join(cells)} |"


def _load_table(report: LibraryReport) -> Iterator[str]:
    yield f"<details><summary>{_text(report.label)}: where it loads</summary>"
    yield ""
    yield "| torch | " + " | ".join(f"{b} | {b}, driver" for b in BUILDS) + " |"
    yield "|---|" + ":-:|" * (2 * len(BUILDS))
    for torch in TORCH_RELEASES:
        marks = [_MARKS[c.outcome] for c in report.cells if c.environment.torch == torch]
        yield f"| {releases_text([torch])} | {' | '.join(marks)} |"
    yield ""
    for obstacle in report.obstacles:
        yield f"* {places_text(obstacle.environments)}: {_text(obstacle.reason)}"
    yield ""
    yield "</details>"
    yield ""


def _code(text: str) -> str:
    return f"`{_text(text)}`"


def _text(text: str) -> str:
    """Names come from files: they must not end a table's cell or begin a tag."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown.replace("|", "\\|").replace("`", "'").replace("<", "&lt;").replace(">", "&gt;")
