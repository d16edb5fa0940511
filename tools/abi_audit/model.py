"""What the audit says about a library: the words that every output form writes down."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

from abi3info.models import PyVersion

from .apis import ApiGroup
from .contents import Contents
from .floors import RuntimeFloor
from .matrix import Cell, Obstacle
from .shims import BASELINE_TORCH, Version
from .tags import NO_PROMISE, Promise


class Kind(str, Enum):
    """What a finding is about. The values are what reports print."""

    UNDEFINED_UNSTABLE = "undefined-unstable"
    EXPORTED_UNSTABLE = "exported-unstable"
    TORCH_PYTHON = "torch-python"
    SHIM_TOO_NEW = "shim-too-new"
    SHIM_UNKNOWN = "shim-unknown"
    PYTHON_API = "python-api"
    ONE_PYTHON = "one-python"
    NEEDED = "needed"
    NEEDED_MISSING = "needed-missing"
    SYMBOL_VERSION = "symbol-version"
    RUNTIME_TOO_NEW = "runtime-too-new"
    RPATH = "rpath"
    RUNPATH = "runpath"
    STATIC_RUNTIME = "static-runtime"
    STRING_LEAK = "string-leak"


#: One sentence per kind: why it matters.
MEANING = {
    Kind.UNDEFINED_UNSTABLE: "needs a symbol of libtorch that may change with any release",
    Kind.EXPORTED_UNSTABLE: "exports a symbol of libtorch's namespaces, which others may bind to",
    Kind.TORCH_PYTHON: "needs torch's Python bindings, which change with torch and Python",
    Kind.SHIM_TOO_NEW: "needs a C shim that the oldest promised torch does not have",
    Kind.SHIM_UNKNOWN: "needs a C shim that no known release has",
    Kind.PYTHON_API: "needs a Python symbol outside the limited API of the promised Python",
    Kind.ONE_PYTHON: "is imported by one Python only",
    Kind.NEEDED: "depends on a library that not every promised torch or machine has",
    Kind.NEEDED_MISSING: "lacks a dependency without which its symbols are not found",
    Kind.SYMBOL_VERSION: "binds symbols to one version of a library outside the C and C++ runtime",
    Kind.RUNTIME_TOO_NEW: "needs a newer C or C++ runtime than the wheel's platform tag promises",
    Kind.RPATH: "carries a search path",
    Kind.RUNPATH: "carries a search path",
    Kind.STATIC_RUNTIME: "has a CUDA runtime inside, which needs a driver of its generation",
    Kind.STRING_LEAK: "leaks memory on every call with a str argument (torch headers before 2.14)",
}


class Verdict(str, Enum):
    """The answer for a library or a run, in order of weight."""

    CLEAN = "clean"
    POLICY_BROKEN = "policy-broken"
    UNREADABLE = "unreadable"

    @property
    def exit_code(self) -> int:
        return {Verdict.CLEAN: 0, Verdict.POLICY_BROKEN: 1, Verdict.UNREADABLE: 2}[self]


@dataclass(frozen=True)
class Finding:
    """One fact about a library; `violation` tells whether it breaks the policy."""

    kind: Kind
    violation: bool
    #: Mangled symbol, library name or search path.
    subject: str
    #: The subject as people read it.
    display: str
    #: Weak or hard, where the subject is a symbol.
    weak: bool | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Shim:
    """A C shim that the library refers to; `since` is None where nobody knows."""

    name: str
    since: Version | None
    weak: bool


@dataclass(frozen=True)
class LibraryReport:
    """Everything found about one artifact."""

    label: str
    #: The same in every version: the member's name in a wheel, the path below a directory.
    key: str = ""
    problem: str | None = None
    python: PyVersion | None = None
    findings: tuple[Finding, ...] = ()
    shims: tuple[Shim, ...] = ()
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    apis: tuple[ApiGroup, ...] = ()
    floors: tuple[RuntimeFloor, ...] = ()
    contents: Contents | None = None
    promise: Promise = NO_PROMISE
    #: The one Python that can import it ("3.12"), where its name or dependencies say so.
    only_python: str | None = None
    uses_python: bool = False
    obstacles: tuple[Obstacle, ...] = ()
    cells: tuple[Cell, ...] = ()

    @property
    def verdict(self) -> Verdict:
        if self.problem is not None:
            return Verdict.UNREADABLE
        broken = any(finding.violation for finding in self.findings)
        return Verdict.POLICY_BROKEN if broken else Verdict.CLEAN

    @property
    def counts(self) -> dict[Kind, int]:
        """Findings of every kind, zeros included."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in Kind}

    @property
    def min_torch(self) -> Version | None:
        """The oldest torch that has every shim the library cannot load without.

        None: it refers to no such shim. At the baseline the true minimum may be older.
        """
        return max((s.since for s in self.shims if s.since and not s.weak), default=None)

    @property
    def pinned_by(self) -> tuple[str, ...]:
        """The shims that `min_torch` introduced; none at the baseline."""
        if self.min_torch in (None, BASELINE_TORCH):
            return ()
        return tuple(s.name for s in self.shims if s.since == self.min_torch and not s.weak)

    @property
    def min_torch_is_lower_bound(self) -> bool:
        """Whether symbols without a known release leave `min_torch` a guess from below."""
        unknown = (Kind.UNDEFINED_UNSTABLE, Kind.SHIM_UNKNOWN)
        return any(f.kind in unknown and not f.weak for f in self.findings)


def overall(reports: list[LibraryReport]) -> Verdict:
    """The weightiest verdict: one unreadable file outweighs any number of broken ones."""
    return max((report.verdict for report in reports), key=lambda v: v.exit_code)
