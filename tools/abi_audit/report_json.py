"""Turns reports into the values of one JSON document, which schema.json describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .model import Finding, LibraryReport, overall
from .policy import Policy
from .shims import NEWEST_TORCH, Version, format_version
from .source_mode import Include, SourceReport
from .verify import Attempt

SCHEMA = Path(__file__).with_name("schema.json")


def document(
    reports: list[LibraryReport], policy: Policy, status: int, attempts: list[Attempt]
) -> dict[str, Any]:
    """An audit as plain values.

    Args:
        status: the exit status, which a baseline or a wrong prediction can make another than the
            verdict's.
    """
    return {
        "schema": 1,
        "verdict": overall(reports).value,
        "exit_code": status,
        "policy": {
            "torch_floor": format_version(policy.torch_floor),
            "python": str(policy.python) if policy.python else None,
            "extra_needed": list(policy.extra_needed),
            "builds": list(policy.builds),
            "driver": policy.driver,
            "platform": policy.platform,
        },
        "newest_known_torch": format_version(NEWEST_TORCH),
        "libraries": [_library(report) for report in reports],
        "verification": [_attempt(attempt) for attempt in attempts],
    }


def problem_document(problem: str) -> dict[str, Any]:
    """Why there is no answer: what a run prints that could not be made at all."""
    return {"schema": 1, "exit_code": 2, "problem": problem}


def source_document(report: SourceReport, status: int) -> dict[str, Any]:
    """What is left to migrate, as plain values."""
    return {
        "schema": 1,
        "exit_code": status,
        "source": {
            "units": len(report.units),
            "unstable_units": [
                {"unit": str(unit), "includes": [_include(include) for include in includes]}
                for unit, includes in sorted(report.unstable.items())
            ],
            "unstable_includes": [_include(include) for include in report.includes],
        },
    }


def _library(report: LibraryReport) -> dict[str, Any]:
    contents = report.contents
    runtime = contents.static_runtime if contents else None
    return {
        "path": report.label,
        "key": report.key,
        "verdict": report.verdict.value,
        "problem": report.problem,
        "python": str(report.python) if report.python else None,
        "only_python": report.only_python,
        "min_torch": _version_or_none(report.min_torch),
        "min_torch_is_lower_bound": report.min_torch_is_lower_bound,
        "pinned_by": list(report.pinned_by),
        "counts": {kind.value: count for kind, count in report.counts.items()},
        "findings": [_finding(finding) for finding in report.findings],
        "apis": [
            {
                "api": group.api,
                "namespaces": list(group.namespaces),
                "undefined": group.undefined,
                "exported": group.exported,
                "replacement": group.replacement,
            }
            for group in report.apis
        ],
        "shims": [
            {"name": s.name, "since": _version_or_none(s.since), "weak": s.weak}
            for s in report.shims
        ],
        "needed": list(report.needed),
        "rpath": list(report.rpath),
        "runpath": list(report.runpath),
        "runtime_floors": [
            {
                "family": floor.family,
                "version": ".".join(map(str, floor.version)),
                "pinned_by": list(floor.pinned_by),
            }
            for floor in report.floors
        ],
        "platform": report.promise.platform,
        "gpu_code": [
            {
                "kind": c.kind,
                "architecture": c.architecture,
                "entries": c.entries,
                "size_bytes": c.size_bytes,
            }
            for c in (contents.gpu_code if contents else ())
        ],
        "static_cuda_runtime": runtime and (".".join(map(str, runtime.version or ())) or "unknown"),
        "string_leaks": contents.string_leaks if contents else None,
        "load_matrix": [
            {
                "torch": f"{c.environment.torch[0]}.{c.environment.torch[1]}",
                "build": c.environment.build,
                "driver": c.environment.driver,
                "loads": c.outcome,
                "reasons": list(c.reasons),
            }
            for c in report.cells
        ],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "key": attempt.key,
        "torch": attempt.torch,
        "python": attempt.python,
        "build": attempt.environment.build,
        "driver": attempt.environment.driver,
        "predicted": attempt.predicted,
        "loaded": attempt.loaded,
        "agrees": attempt.agrees,
        "error": attempt.error,
        "borrowed": list(attempt.borrowed),
    }


def _include(include: Include) -> dict[str, Any]:
    return {"path": str(include.path), "line": include.line, "header": include.header}


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "violation": finding.violation,
        "subject": finding.subject,
        "display": finding.display,
        "weak": finding.weak,
        "detail": finding.detail,
    }


def _version_or_none(version: Version | None) -> str | None:
    return None if version is None else format_version(version)
