"""Says what changed between two versions of a wheel or build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .matrix import YES, Environment
from .model import Finding, LibraryReport
from .phrases import finding_text, min_torch_text, places_text


@dataclass(frozen=True)
class LibraryDiff:
    """One library in both versions; a version without it has nothing."""

    key: str
    old: LibraryReport | None
    new: LibraryReport | None

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Violations before and now, by kind, where either has any."""
        old, new = _counts(self.old), _counts(self.new)
        return {kind: (old[kind], new[kind]) for kind in sorted({*old, *new})}

    @property
    def added(self) -> tuple[Finding, ...]:
        return _without(self.new, self.old)

    @property
    def removed(self) -> tuple[Finding, ...]:
        return _without(self.old, self.new)

    @property
    def lost(self) -> tuple[Environment, ...]:
        """Where only the old one was predicted to load."""
        return _only_in(self.old, self.new)

    @property
    def gained(self) -> tuple[Environment, ...]:
        return _only_in(self.new, self.old)

    @property
    def is_worse(self) -> bool:
        """Whether a count rose, or an environment is lost that a library of both had."""
        rose = any(after > before for before, after in self.counts.values())
        return rose or bool(self.old and self.new and self.lost)


def diff(old: list[LibraryReport], new: list[LibraryReport]) -> list[LibraryDiff]:
    """Pair the libraries of two versions by their key."""
    before, after = ({report.key: report for report in side} for side in (old, new))
    return [LibraryDiff(key, before.get(key), after.get(key)) for key in sorted({*before, *after})]


def diff_text(diffs: list[LibraryDiff], everything: bool) -> Iterator[str]:
    """Lines of ``library: what changed``."""
    for item in diffs:
        if item.old is None or item.new is None:
            yield f"{item.key}: {'added' if item.old is None else 'removed'}"
        for kind, (before, now) in item.counts.items():
            yield f"{item.key}: {kind}: {before} -> {now}"
        for sign, findings in (("+", item.added), ("-", item.removed)):
            shown = findings if everything else findings[:10]
            for finding in shown:
                yield f"{item.key}: {sign} {finding.kind.value}: {finding_text(finding)}"
            if len(shown) < len(findings):
                yield f"{item.key}: {sign} and {len(findings) - len(shown)} more (--all)"
        if item.old and item.new:
            if item.old.min_torch != item.new.min_torch:
                before_text, now_text = min_torch_text(item.old), min_torch_text(item.new)
                yield f"{item.key}: min-torch: {before_text} -> {now_text}"
            if item.lost:
                yield f"{item.key}: no longer loads: {places_text(item.lost)}"
            if item.gained:
                yield f"{item.key}: loads now: {places_text(item.gained)}"
    yield "diff: worse" if any(item.is_worse for item in diffs) else "diff: not worse"


def diff_json(diffs: list[LibraryDiff]) -> dict[str, Any]:
    """The same as plain values; the key "diff" of schema.json."""
    return {
        "schema": 1,
        "diff": [
            {
                "key": item.key,
                "worse": item.is_worse,
                "counts": {kind: list(pair) for kind, pair in item.counts.items()},
                "added": [f.subject for f in item.added],
                "removed": [f.subject for f in item.removed],
                "lost": [_environment(e) for e in item.lost],
                "gained": [_environment(e) for e in item.gained],
            }
            for item in diffs
        ],
    }


def _environment(environment: Environment) -> dict[str, Any]:
    major, minor = environment.torch
    return {
        "torch": f"{major}.{minor}",
        "build": environment.build,
        "driver": environment.driver,
    }


def _counts(report: LibraryReport | None) -> Counter[str]:
    return Counter(f.kind.value for f in report.findings if f.violation) if report else Counter()


def _without(one: LibraryReport | None, other: LibraryReport | None) -> tuple[Finding, ...]:
    known = {(f.kind, f.subject) for f in other.findings} if other else set()
    return tuple(f for f in one.findings if (f.kind, f.subject) not in known) if one else ()


def _only_in(one: LibraryReport | None, other: LibraryReport | None) -> tuple[Environment, ...]:
    loads = {c.environment for c in other.cells if c.outcome == YES} if other else set()
    cells = one.cells if one else ()
    return tuple(c.environment for c in cells if c.outcome == YES and c.environment not in loads)
