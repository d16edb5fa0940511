"""Writes reports as text, one finding per line, or as JSON.

The JSON document (``"schema": 1``; keys are only ever added)::

    verdict            "clean" | "policy-broken" | "unreadable", of the whole run
    exit_code          0 | 1 | 2, the same
    policy             torch_floor; python (null: each wheel's tag, else 3.10); extra_needed
    newest_known_torch the newest release whose shims were checked against the table
    libraries          one object per library, in order of input:
      path             the file, or "wheel:member"
      verdict          as above
      problem          why it could not be read, else null; if set, all below is empty or null
      python           the limited API it was held against, "3.10"
      min_torch        oldest torch with all shims it cannot load without, "2.10.0"; null: no shims;
                       "2.9.0" stands for 2.9.0 or older
      min_torch_is_lower_bound  unstable or unknown symbols make the true minimum unknown
      pinned_by        the shims that min_torch introduced; empty for "2.9.0"
      counts           findings by kind, zeros included
      findings         kind, violation (false: a note), subject (mangled symbol, library or path),
                       display (demangled), weak (null where not a symbol), detail (or null)
      shims            name, since ("2.10.0"; null: unknown), weak
      needed, rpath, runpath   as in the file's dynamic section
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .checks import Finding, Kind, LibraryReport, Verdict, overall
from .policy import Policy
from .shims import BASELINE_TORCH, NEWEST_TORCH, Version, format_version


def as_json(reports: list[LibraryReport], policy: Policy) -> str:
    """The whole run as one JSON document; the keys are described in this module."""
    verdict = overall(reports)
    document = {
        "schema": 1,
        "verdict": verdict.value,
        "exit_code": verdict.exit_code,
        "policy": {
            "torch_floor": format_version(policy.torch_floor),
            "python": str(policy.python) if policy.python else None,
            "extra_needed": list(policy.extra_needed),
        },
        "newest_known_torch": format_version(NEWEST_TORCH),
        "libraries": [_library_json(report) for report in reports],
    }
    return json.dumps(document, indent=2)


def as_text(reports: list[LibraryReport]) -> Iterator[str]:
    """Lines of ``path: kind: what``, never wrapped or coloured; the last is the verdict."""
    for report in reports:
        for line in _library_lines(report):
            yield _one_line(f"{report.label}: {line}")
    counts = {v: sum(report.verdict is v for report in reports) for v in Verdict}
    tally = ", ".join(f"{n} {v.value}" for v, n in counts.items() if n)
    yield f"verdict: {overall(reports).value} ({tally})"


def _library_json(report: LibraryReport) -> dict[str, Any]:
    return {
        "path": report.label,
        "verdict": report.verdict.value,
        "problem": report.problem,
        "python": str(report.python) if report.python else None,
        "min_torch": _version_or_none(report.min_torch),
        "min_torch_is_lower_bound": report.min_torch_is_lower_bound,
        "pinned_by": list(report.pinned_by),
        "counts": {kind.value: count for kind, count in report.counts.items()},
        "findings": [_finding_json(finding) for finding in report.findings],
        "shims": [
            {"name": s.name, "since": _version_or_none(s.since), "weak": s.weak}
            for s in report.shims
        ],
        "needed": list(report.needed),
        "rpath": list(report.rpath),
        "runpath": list(report.runpath),
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "violation": finding.violation,
        "subject": finding.subject,
        "display": finding.display,
        "weak": finding.weak,
        "detail": finding.detail,
    }


def _library_lines(report: LibraryReport) -> Iterator[str]:
    if report.problem is not None:
        yield f"unreadable: {report.problem}"
        return
    for finding in report.findings:
        yield _finding_line(finding)
    counts = report.counts
    weak_shims = sum(shim.weak for shim in report.shims)
    yield f"min-torch: {_min_torch_text(report)}"
    yield (
        f"{report.verdict.value}: {counts[Kind.UNDEFINED_UNSTABLE]} undefined and "
        f"{counts[Kind.EXPORTED_UNSTABLE]} exported unstable symbols, "
        f"{len(report.shims)} shims ({weak_shims} weak), "
        f"{counts[Kind.PYTHON_API]} symbols outside the limited API of Python {report.python}, "
        f"needs {', '.join(report.needed) or 'no library'}"
    )


def _finding_line(finding: Finding) -> str:
    parts = [finding.display]
    if finding.display != finding.subject:
        parts[0] += f" [{finding.subject}]"
    if finding.weak is not None:
        parts.append("weak" if finding.weak else "hard")
    if finding.detail is not None:
        parts.append(finding.detail)
    kind = finding.kind.value if finding.violation else f"note: {finding.kind.value}"
    return f"{kind}: {', '.join(parts)}"


def _min_torch_text(report: LibraryReport) -> str:
    bound = "at least " if report.min_torch_is_lower_bound else ""
    if report.min_torch is None:
        return "unknown, its symbols promise nothing" if bound else "any, it needs no shim"
    version = format_version(report.min_torch)
    if report.min_torch == BASELINE_TORCH:
        return f"{bound}{version} or older"
    return f"{bound}{version}, pinned by {', '.join(report.pinned_by)}"


def _version_or_none(version: Version | None) -> str | None:
    return None if version is None else format_version(version)


def _one_line(text: str) -> str:
    """Names come from the file: a newline or an escape sequence in one must not make a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
