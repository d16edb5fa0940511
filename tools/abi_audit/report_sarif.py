"""Writes findings as SARIF 2.1.0, which GitHub's code scanning and many editors read.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from .model import MEANING, Finding, Kind, LibraryReport
from .phrases import finding_text
from .source_mode import Include

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_UNREADABLE = "unreadable"
_UNSTABLE_HEADER = "unstable-header"
_RULES = {
    **{kind.value: meaning for kind, meaning in MEANING.items()},
    _UNREADABLE: "could not be read, so nothing about it is known",
    _UNSTABLE_HEADER: "includes a header of torch outside the stable ABI",
}


def as_sarif(reports: list[LibraryReport]) -> str:
    """One run with a result per finding; what the policy allows has the level "note"."""
    results = []
    for report in reports:
        if report.problem is not None:
            results.append(_result(_UNREADABLE, "error", report.problem, _file(report)))
        results += [_of_finding(report, finding) for finding in report.findings]
    return _document(results)


def source_sarif(includes: list[Include]) -> str:
    """One run with a result per place that includes an unstable header."""
    return _document(
        [
            _result(_UNSTABLE_HEADER, "error", f"includes {i.header}", str(i.path), i.line)
            for i in includes
        ]
    )


def _file(report: LibraryReport) -> str:
    """The file that can be opened: for a member of a wheel, the wheel."""
    return report.label.removesuffix(f":{report.key}") if report.key else report.label


def _of_finding(report: LibraryReport, finding: Finding) -> dict[str, Any]:
    level = "error" if finding.violation else "note"
    text = f"{finding_text(finding)}: {MEANING[Kind(finding.kind)]}"
    result = _result(finding.kind.value, level, text, _file(report))
    library = {"name": report.key, "kind": "module"}
    result["locations"][0]["logicalLocations"] = [library]
    # The same finding of the next build is the same result, whatever else has changed.
    subject = f"{report.key}:{finding.kind.value}:{finding.subject}"
    result["partialFingerprints"] = {"subject/v1": subject}
    return result


def _result(rule: str, level: str, text: str, path: str, line: int | None = None) -> dict[str, Any]:
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(path)}}
    if line is not None:
        location["region"] = {"startLine": line}
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": location}],
    }


def _document(results: list[dict[str, Any]]) -> str:
    rules = [
        {"id": name, "shortDescription": {"text": text}} for name, text in sorted(_RULES.items())
    ]
    driver = {"name": "kvops-audit", "rules": rules}
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "utf16CodeUnits"}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)
