"""Writes findings as GitHub workflow commands, which appear as annotations of a pull request.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .model import MEANING, LibraryReport
from .phrases import finding_text
from .report_text import one_line
from .source_mode import Include

# GitHub shows ten annotations of a level per step; more would only hide the first.
_SHOWN = 10


def as_annotations(reports: list[LibraryReport]) -> Iterator[str]:
    """One annotation per library and kind of violation, the first of each kind in its text."""
    for report in reports:
        if report.problem is not None:
            yield _command("error", report.label, None, "unreadable", report.problem)
            continue
        violations = [finding for finding in report.findings if finding.violation]
        counts = Counter(finding.kind for finding in violations)
        for kind, count in counts.items():
            first = next(f for f in violations if f.kind is kind)
            more = f" (and {count - 1} more)" if count > 1 else ""
            text = f"{report.label} {MEANING[kind]}: {one_line(finding_text(first))}{more}"
            yield _command("error", None, None, kind.value, text)


def source_annotations(includes: list[Include]) -> Iterator[str]:
    """One annotation per place that includes an unstable header, as far as GitHub shows them."""
    for include in includes[:_SHOWN]:
        text = f"includes {include.header}, which is not part of torch's stable ABI"
        yield _command("error", str(include.path), include.line, "unstable-header", text)


def _command(level: str, file: str | None, line: int | None, title: str, text: str) -> str:
    properties = {"file": file, "line": line, "title": title}
    given = ",".join(f"{k}={_escaped(v, True)}" for k, v in properties.items() if v is not None)
    return f"::{level} {given}::{_escaped(text, False)}"


def _escaped(value: object, is_property: bool) -> str:
    text = str(value).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if is_property else text
