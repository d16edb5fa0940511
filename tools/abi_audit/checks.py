"""Holds one library against the policy and lists what stands in the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from abi3info.models import PyVersion

from .elf import DynamicSymbol, SharedLibrary, Unreadable, read_library
from .inputs import Artifact
from .namespaces import unstable_name
from .policy import Policy, why_refused
from .python_api import DEFAULT_PYTHON, is_python_api, limited_api_since
from .shims import BASELINE_TORCH, Version, format_version, is_shim, shim_since


class Kind(str, Enum):
    """What a finding is about. The values are what reports print."""

    UNDEFINED_UNSTABLE = "undefined-unstable"
    EXPORTED_UNSTABLE = "exported-unstable"
    SHIM_TOO_NEW = "shim-too-new"
    SHIM_UNKNOWN = "shim-unknown"
    PYTHON_API = "python-api"
    NEEDED = "needed"
    NEEDED_MISSING = "needed-missing"
    RPATH = "rpath"
    RUNPATH = "runpath"


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
    problem: str | None = None
    python: PyVersion | None = None
    findings: tuple[Finding, ...] = ()
    shims: tuple[Shim, ...] = ()
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()

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


def audit(artifact: Artifact, policy: Policy) -> LibraryReport:
    """Read one artifact and list its findings; never raises for what the file holds."""
    try:
        with artifact.open() as stream:
            library = read_library(stream)
    except Unreadable as error:
        return LibraryReport(artifact.label, problem=str(error))
    python = policy.python or artifact.python or DEFAULT_PYTHON
    shims = tuple(
        Shim(s.name, shim_since(s.name), s.weak) for s in library.undefined if is_shim(s.name)
    )
    findings = (
        *_unstable(library.undefined, Kind.UNDEFINED_UNSTABLE),
        *_unstable(library.exported, Kind.EXPORTED_UNSTABLE),
        *_shims_outside_policy(shims, policy.torch_floor),
        *_python_api_outside(library.undefined, python),
        *_dependencies(artifact.name, library, policy),
    )
    return LibraryReport(
        label=artifact.label,
        python=python,
        findings=findings,
        shims=shims,
        needed=library.needed,
        rpath=library.rpath,
        runpath=library.runpath,
    )


def overall(reports: list[LibraryReport]) -> Verdict:
    """The weightiest verdict: one unreadable file outweighs any number of broken ones."""
    return max((report.verdict for report in reports), key=lambda v: v.exit_code)


def _unstable(symbols: tuple[DynamicSymbol, ...], kind: Kind) -> Iterator[Finding]:
    for symbol in symbols:
        display = unstable_name(symbol.name)
        if display is not None:
            yield Finding(kind, True, symbol.name, display, symbol.weak)


def _shims_outside_policy(shims: tuple[Shim, ...], floor: Version) -> Iterator[Finding]:
    for shim in shims:
        if shim.since is None:
            # Weak or not: a name that no release had may be a typing error.
            detail = "not known from any torch release"
            yield Finding(Kind.SHIM_UNKNOWN, True, shim.name, shim.name, shim.weak, detail)
        elif shim.since > floor:
            # A weak reference is null on an older torch: the library loads and can look.
            detail = f"since torch {format_version(shim.since)}, floor {format_version(floor)}"
            yield Finding(Kind.SHIM_TOO_NEW, not shim.weak, shim.name, shim.name, shim.weak, detail)


def _python_api_outside(symbols: tuple[DynamicSymbol, ...], python: PyVersion) -> Iterator[Finding]:
    for symbol in symbols:
        if not is_python_api(symbol.name):
            continue
        since = limited_api_since(symbol.name)
        if since is None:
            detail = "not in the limited API"
        elif since > python:
            detail = f"in the limited API since Python {since}, promised is {python}"
        else:
            continue
        yield Finding(Kind.PYTHON_API, True, symbol.name, symbol.name, symbol.weak, detail)


def _dependencies(name: str, library: SharedLibrary, policy: Policy) -> Iterator[Finding]:
    for needed in library.needed:
        if not policy.allows_needed(name, needed):
            yield Finding(Kind.NEEDED, True, needed, needed, detail=why_refused(needed))
    for required in policy.required_needed(name):
        if required not in library.needed:
            detail = "its symbols are not found without this dependency"
            yield Finding(Kind.NEEDED_MISSING, True, required, required, detail=detail)
    for kind, paths in ((Kind.RPATH, library.rpath), (Kind.RUNPATH, library.runpath)):
        for path in paths:
            yield Finding(kind, False, path, path)
