"""Lets a migration only go forward: counts may fall, never rise.

The baseline is a file in the repository: for every library, and for the source, how many violations
of each kind are left. A run fails when a count has risen, also from nothing; when counts have only
fallen, the file is rewritten, to be committed with the change that earned it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .model import LibraryReport
from .output_files import write_text
from .source_mode import SourceReport

#: Violations by what they are found in, then by kind.
Counts = Mapping[str, Mapping[str, int]]


class BadBaseline(Exception):
    """The file is no baseline; the message says why."""


@dataclass(frozen=True)
class Comparison:
    """One count of the baseline beside today's."""

    where: str
    kind: str
    before: int
    now: int

    def __str__(self) -> str:
        verb = "rose" if self.now > self.before else "fell"
        return f"{verb}: {self.where}: {self.kind}: {self.before} -> {self.now}"


def counts_of_libraries(reports: list[LibraryReport]) -> Counts:
    """The violations of each library by kind, without zeros.

    Libraries of one name (two builds of one wheel) are told apart by their order.
    """
    counts: dict[str, dict[str, int]] = {}
    seen: Counter[str] = Counter()
    for report in reports:
        seen[report.key] += 1
        number = seen[report.key]
        where = report.key if number == 1 else f"{report.key} ({number})"
        counts[where] = dict(Counter(f.kind.value for f in report.findings if f.violation))
    return counts


def counts_of_source(report: SourceReport) -> Counts:
    """How many translation units and include lines are left."""
    return {
        "source": {
            "unstable-units": len(report.unstable),
            "unstable-includes": len(report.includes),
        }
    }


def read_baseline(path: Path) -> Counts | None:
    """The counts in a file; None if there is no file.

    Raises:
        BadBaseline: it cannot be read, or is something else.
    """
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        counts = document["counts"]
        if document["schema"] != 1 or not all(
            isinstance(n, int) for kinds in counts.values() for n in kinds.values()
        ):
            raise ValueError("not a baseline of this version")
        return counts
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadBaseline(f"{path}: not a baseline ({error})") from error


def write_baseline(path: Path, counts: Counts) -> None:
    """Write counts so that a change of one is a change of one line."""
    document = {"schema": 1, "counts": {where: counts[where] for where in sorted(counts)}}
    write_text(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def compare(before: Counts, now: Counts) -> list[Comparison]:
    """Every count that has changed."""
    changes = []
    for where in sorted({*before, *now}):
        old, new = before.get(where, {}), now.get(where, {})
        for kind in sorted({*old, *new}):
            if old.get(kind, 0) != new.get(kind, 0):
                changes.append(Comparison(where, kind, old.get(kind, 0), new.get(kind, 0)))
    return changes


def run_ratchet(path: Path, now: Counts) -> tuple[int, list[str]]:
    """Hold today's counts against the file, and rewrite it where they allow it.

    Returns:
        the exit status, and lines that say what was done.

    Raises:
        BadBaseline: the file is something else; it is left alone.
    """
    before = read_baseline(path)
    total = sum(n for kinds in now.values() for n in kinds.values())
    if before is None:
        write_baseline(path, now)
        # Nothing was compared, so nothing is known to be as good as before.
        return 1, [f"baseline: {path} did not exist, written with {total} violations: commit it"]
    changes = compare(before, now)
    lines = [f"baseline: {change}" for change in changes]
    if any(change.now > change.before for change in changes):
        return 1, [*lines, f"baseline: {path}: a count rose"]
    if changes:
        write_baseline(path, now)
        return 0, [*lines, f"baseline: {path} rewritten, {total} violations left: commit it"]
    return 0, [f"baseline: {path}: unchanged, {total} violations left"]
