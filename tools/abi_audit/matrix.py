"""Predicts on which torch a library loads, and names what stands in the way elsewhere.

A cell is a release of torch, how it is built (CPU, CUDA 12, CUDA 13) and whether the machine has
NVIDIA's driver. It is "no" where something that the loader insists on is known to be missing, and
"unknown" where the library needs what no table has: unstable symbols outside the survey, or
libraries of other people. "yes" means that the dynamic loader will find everything; `--verify`
tries it.

The loader's rules behind it: extensions are opened with RTLD_NOW, so every hard symbol must be
found; torch is loaded RTLD_LOCAL, so its symbols are found only through the library's own
dependencies (or those of its dependencies); a dependency that `import torch` has loaded already is
found by its soname, wherever it lies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .elf import DynamicSymbol, SharedLibrary
from .facts import (
    BRINGS_CUDA_SHIMS,
    BRINGS_SHIMS,
    BUILDS,
    TORCH_RELEASES,
    builds_with,
    is_brought,
    is_cuda_shim,
    is_driver_library,
    is_system_library,
)
from .namespaces import unstable_name
from .shims import Version, format_version, is_shim, shim_since
from .survey import releases_with

YES, NO, UNKNOWN = "yes", "no", "unknown"

_CUDA_RUNTIME_SYMBOL = re.compile(r"cuda[A-Z]\w+|__cuda(?:Register|Unregister|Push|Pop|Init)\w+")


@dataclass(frozen=True)
class Environment:
    """One cell's torch and machine."""

    torch: tuple[int, int]
    build: str
    driver: bool


ENVIRONMENTS = tuple(
    Environment(torch, build, driver)
    for torch in TORCH_RELEASES
    for build in BUILDS
    for driver in (False, True)
)


@dataclass(frozen=True)
class Cell:
    """The prediction for one environment; reasons are empty for "yes"."""

    environment: Environment
    outcome: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Obstacle:
    """Something a library needs, and where that is missing ("no") or unheard of ("unknown")."""

    reason: str
    outcome: str
    stands_in: Callable[[Environment], bool]

    @property
    def environments(self) -> tuple[Environment, ...]:
        return tuple(e for e in ENVIRONMENTS if self.stands_in(e))


def find_obstacles(
    library: SharedLibrary, beside: Mapping[str, SharedLibrary]
) -> tuple[Obstacle, ...]:
    """Everything that keeps a library, or what it brings along, from loading somewhere.

    Args:
        library: the one to be loaded.
        beside: the libraries that come with it, by the name that others need them under.
    """
    found = {o.reason: o for o in _all_obstacles(library, beside) if o.environments}
    return tuple(found.values())


def predict(obstacles: tuple[Obstacle, ...]) -> tuple[Cell, ...]:
    """The outcome in every environment."""
    return tuple(_cell(environment, obstacles) for environment in ENVIRONMENTS)


def _cell(environment: Environment, obstacles: tuple[Obstacle, ...]) -> Cell:
    met = [obstacle for obstacle in obstacles if obstacle.stands_in(environment)]
    outcomes = {obstacle.outcome for obstacle in met}
    outcome = NO if NO in outcomes else UNKNOWN if UNKNOWN in outcomes else YES
    # What is only unknown does not explain a "no".
    reasons = tuple(dict.fromkeys(o.reason for o in met if o.outcome == outcome))
    return Cell(environment, outcome, reasons)


def _all_obstacles(
    library: SharedLibrary, beside: Mapping[str, SharedLibrary]
) -> Iterator[Obstacle]:
    """Those of the library and of everything beside it that it brings along."""
    waiting, seen = [library], {id(library)}
    while waiting:
        current = waiting.pop(0)
        closure = _closure(current, beside)
        own = {s.name for name in closure if name in beside for s in beside[name].exported}
        hard = [s for s in current.undefined if not s.weak and s.name not in own]
        for needed in current.needed:
            if needed not in beside:
                yield from _dependency_obstacles(needed)
            elif id(beside[needed]) not in seen:
                seen.add(id(beside[needed]))
                waiting.append(beside[needed])
        yield from _symbol_obstacles(hard, closure)


def _closure(library: SharedLibrary, beside: Mapping[str, SharedLibrary]) -> set[str]:
    """The names of all dependencies, direct and through libraries beside it."""
    found: set[str] = set()
    waiting = list(library.needed)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += beside[name].needed if name in beside else ()
    return found


def _dependency_obstacles(needed: str) -> Iterator[Obstacle]:
    if is_system_library(needed):
        return
    if is_driver_library(needed):
        yield Obstacle(f"needs {needed}, of NVIDIA's driver", NO, lambda e: not e.driver)
    elif builds_with(needed) is not None:
        reason = f"needs {needed}"
        yield Obstacle(reason, NO, lambda e: not is_brought(needed, e.torch, e.build))
    elif needed.startswith("libpython"):
        yield Obstacle(f"needs {needed}, of one Python", UNKNOWN, lambda e: True)
    else:
        yield Obstacle(f"needs {needed}, which torch does not bring", UNKNOWN, lambda e: True)


def _symbol_obstacles(hard: list[DynamicSymbol], closure: set[str]) -> Iterator[Obstacle]:
    shims = [symbol.name for symbol in hard if is_shim(symbol.name)]
    if shims and closure.isdisjoint(BRINGS_SHIMS):
        reason = f"{shims[0]} is not found: none of its dependencies brings libtorch"
        yield Obstacle(reason, NO, lambda e: True)
    yield from _shim_obstacles(shims, closure)
    yield from _unstable_obstacles(hard)
    runtime = [s.name for s in hard if _CUDA_RUNTIME_SYMBOL.fullmatch(s.name)]
    if runtime and not any(name.startswith("libcudart") for name in closure):
        # import torch loads the runtime for everybody (libtorch_global_deps.so, RTLD_GLOBAL).
        reason = f"{runtime[0]} is not found without a CUDA runtime"
        yield Obstacle(reason, NO, lambda e: e.build == "cpu")


def _shim_obstacles(shims: list[str], closure: set[str]) -> Iterator[Obstacle]:
    by_release: dict[Version | None, list[str]] = {}
    for name in shims:
        by_release.setdefault(shim_since(name), []).append(name)
    unknown = by_release.pop(None, [])
    if unknown:
        yield Obstacle(f"{_some(unknown)}: known from no release", UNKNOWN, lambda e: True)
    for since, names in sorted(by_release.items(), reverse=True):
        reason = f"{_some(names)}: new in {format_version(since)}"
        yield Obstacle(reason, NO, lambda e, release=since[:2]: e.torch < release)
    cuda = [name for name in shims if is_cuda_shim(name)]
    if cuda:
        yield Obstacle(f"{_some(cuda)}: only in CUDA builds", NO, lambda e: e.build == "cpu")
    if cuda and closure.isdisjoint(BRINGS_CUDA_SHIMS):
        reason = f"{_some(cuda)}: not found, none of its dependencies brings libtorch_cuda.so"
        yield Obstacle(reason, NO, lambda e: e.build != "cpu")


def _some(names: list[str]) -> str:
    """The first of several names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _unstable_obstacles(hard: list[DynamicSymbol]) -> Iterator[Obstacle]:
    unstable = {s.name: display for s in hard if (display := unstable_name(s.name)) is not None}
    if not unstable:
        return
    surveyed = {name: releases_with(name) for name in unstable}
    by_releases: dict[frozenset[tuple[int, int]], list[str]] = {}
    for name, releases in surveyed.items():
        if releases is not None and len(releases) < len(TORCH_RELEASES):
            by_releases.setdefault(releases, []).append(unstable[name].partition("(")[0])
    for releases, names in by_releases.items():
        have = ", ".join(f"{major}.{minor}" for major, minor in sorted(releases))
        reason = f"{_some(names)}: unstable, only in torch {have}"
        yield Obstacle(reason, NO, lambda e, has=releases: e.torch not in has)
    old_strings = [d for d in unstable.values() if re.search(r"\bstd::string\b", d)]
    if old_strings:
        # torch's Linux wheels have had the new std::string since 2.6 and 2.7.
        yield Obstacle("is built with the old C++ ABI (std::string)", NO, lambda e: True)
    unheard = sum(releases is None for releases in surveyed.values())
    if unheard:
        reason = f"{unheard} unstable symbols that no survey has looked for"
        yield Obstacle(reason, UNKNOWN, lambda e: True)
