"""Holds libraries against the policy and lists what stands in the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from abi3info.models import PyVersion

from .apis import group_symbols
from .contents import Contents, read_contents
from .elf import DynamicSymbol, SharedLibrary, Unreadable, read_library
from .facts import driver_floor, glibc_of_tag, libstdcxx_of_glibc
from .floors import RuntimeFloor, runtime_floors
from .inputs import Artifact
from .matrix import find_obstacles, predict
from .model import Finding, Kind, LibraryReport, Shim
from .namespaces import unstable_name
from .policy import Policy, why_refused
from .python_api import DEFAULT_PYTHON, is_python_api, limited_api_since
from .shims import Version, format_version, is_shim, shim_since
from .tags import Promise, python_of_library

# C symbols of torch's own Python module; its C++ ones are found by their namespaces.
_TORCH_PYTHON = re.compile(r"_?THP[A-Z]")
_LIBPYTHON = re.compile(r"libpython(3\.\d+t?)\.so")
#: Symbols that are named where a newer runtime is needed than promised.
SHOWN_PINS = 5
_RUNTIME_FAMILY = re.compile(r"(GLIBC|GLIBCXX|CXXABI|GCC|OMP|GOMP|GOACC|LIBGCC)_")


@dataclass(frozen=True)
class _Read:
    """An artifact's content, or why there is none."""

    artifact: Artifact
    library: SharedLibrary | None = None
    contents: Contents | None = None
    problem: str | None = None


def audit(artifacts: Iterable[Artifact], policy: Policy) -> list[LibraryReport]:
    """Read artifacts and list their findings; never raises for what a file holds."""
    read = [_read(artifact) for artifact in artifacts]
    beside: dict[str, dict[str, SharedLibrary]] = {}
    for item in read:
        if item.library is not None:
            group = beside.setdefault(item.artifact.group, {})
            group.setdefault(item.artifact.name, item.library)
            if item.library.soname is not None:
                group.setdefault(item.library.soname, item.library)
    return [_report(item, beside.get(item.artifact.group, {}), policy) for item in read]


def _read(artifact: Artifact) -> _Read:
    try:
        with artifact.open() as stream:
            return _Read(artifact, read_library(stream), read_contents(stream))
    except Unreadable as error:
        return _Read(artifact, problem=str(error))


def _report(item: _Read, beside: dict[str, SharedLibrary], policy: Policy) -> LibraryReport:
    artifact, library, contents = item.artifact, item.library, item.contents
    if library is None or contents is None:
        return LibraryReport(artifact.label, artifact.key, problem=item.problem)
    promise = artifact.promise
    obstacles = find_obstacles(library, beside)
    python = policy.python or promise.python or DEFAULT_PYTHON
    only_python = _only_python(artifact.name, library, promise)
    shims = tuple(
        Shim(s.name, shim_since(s.name), s.weak) for s in library.undefined if is_shim(s.name)
    )
    floors = runtime_floors(library.undefined)
    undefined = tuple(_unstable(library.undefined, Kind.UNDEFINED_UNSTABLE))
    exported = tuple(_unstable(library.exported, Kind.EXPORTED_UNSTABLE))
    findings = (
        *undefined,
        *exported,
        *_torch_python(library.undefined),
        *_shims_outside_policy(shims, policy.torch_floor),
        *_python_api_outside(library.undefined, python, only_python),
        *_dependencies(artifact.name, library, policy, beside),
        *_versions(library.undefined),
        *_floors_above(floors, promise, policy.platform),
        *_contents(contents),
    )
    return LibraryReport(
        label=artifact.label,
        key=artifact.key,
        python=python,
        findings=findings,
        shims=shims,
        needed=library.needed,
        rpath=library.rpath,
        runpath=library.runpath,
        apis=group_symbols((f.display for f in undefined), (f.display for f in exported)),
        floors=floors,
        contents=contents,
        promise=promise,
        only_python=only_python,
        uses_python=any(is_python_api(s.name) for s in library.undefined),
        obstacles=obstacles,
        cells=predict(obstacles),
    )


def _only_python(name: str, library: SharedLibrary, promise: Promise) -> str | None:
    linked = next((m[1] for n in library.needed if (m := _LIBPYTHON.match(n))), None)
    tagged = str(promise.python) if promise.python and promise.python_exact else None
    uses = any(is_python_api(s.name) for s in library.undefined)
    return linked or python_of_library(name) or (tagged if uses else None)


def _unstable(symbols: tuple[DynamicSymbol, ...], kind: Kind) -> Iterator[Finding]:
    for symbol in symbols:
        display = unstable_name(symbol.name)
        if display is not None:
            yield Finding(kind, True, symbol.name, display, symbol.weak)


def _torch_python(symbols: tuple[DynamicSymbol, ...]) -> Iterator[Finding]:
    for symbol in symbols:
        if _TORCH_PYTHON.match(symbol.name):
            yield Finding(Kind.TORCH_PYTHON, True, symbol.name, symbol.name, symbol.weak)


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


def _python_api_outside(
    symbols: tuple[DynamicSymbol, ...], python: PyVersion, only_python: str | None
) -> Iterator[Finding]:
    if only_python is not None:
        # It promises no other Python, so the limited API is no matter.
        yield Finding(Kind.ONE_PYTHON, False, only_python, f"Python {only_python}")
        return
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


def _dependencies(
    name: str, library: SharedLibrary, policy: Policy, beside: dict[str, SharedLibrary]
) -> Iterator[Finding]:
    for needed in library.needed:
        if needed not in beside and not policy.allows_needed(name, needed):
            yield Finding(Kind.NEEDED, True, needed, needed, detail=why_refused(needed))
    for required in policy.required_needed(name):
        if required not in library.needed:
            detail = "its symbols are not found without this dependency"
            yield Finding(Kind.NEEDED_MISSING, True, required, required, detail=detail)
    for kind, paths in ((Kind.RPATH, library.rpath), (Kind.RUNPATH, library.runpath)):
        for path in paths:
            yield Finding(kind, False, path, path)


def _versions(symbols: tuple[DynamicSymbol, ...]) -> Iterator[Finding]:
    """Symbols that only one version of a library has, such as cudaMalloc@libcudart.so.13."""
    bound: dict[tuple[str, str], list[str]] = {}
    for symbol in symbols:
        if symbol.version is not None and not _RUNTIME_FAMILY.match(symbol.version[0]):
            bound.setdefault(symbol.version, []).append(symbol.name)
    for (version, library), names in sorted(bound.items()):
        detail = f"{len(names)} symbols are bound to it, {names[0]} for one"
        yield Finding(Kind.SYMBOL_VERSION, False, version, f"{version} of {library}", None, detail)


def _floors_above(
    floors: tuple[RuntimeFloor, ...], promise: Promise, by_hand: str | None
) -> Iterator[Finding]:
    platform = by_hand or promise.platform
    glibc = glibc_of_tag(by_hand) if by_hand else promise.glibc
    cxx = libstdcxx_of_glibc(glibc) if glibc else None
    allowed = {"GLIBC": glibc, "GLIBCXX": cxx and cxx[0], "CXXABI": cxx and cxx[1]}
    for floor in floors:
        newest = allowed.get(floor.family)
        if floor.family == "GLIBC" and platform and platform.startswith("musllinux"):
            why = f"{platform} has no glibc"
        elif newest is not None and floor.version > newest:
            why = f"{platform} promises less"
        else:
            continue
        symbols = ", ".join(floor.pinned_by[:SHOWN_PINS])
        more = len(floor.pinned_by) - SHOWN_PINS
        detail = f"{why}; pinned by {symbols}" + (f" and {more} more" if more > 0 else "")
        yield Finding(Kind.RUNTIME_TOO_NEW, True, floor.text, floor.text, None, detail)


def _contents(contents: Contents) -> Iterator[Finding]:
    runtime = contents.static_runtime
    if runtime is not None:
        name, detail = "CUDA runtime", "of unknown version"
        if runtime.version is not None:
            name = f"CUDA runtime {runtime.version[0]}.{runtime.version[1]}"
            detail = f"needs driver {driver_floor(runtime.version[0]) or 'unknown'} or later"
        yield Finding(Kind.STATIC_RUNTIME, False, name, name, None, detail)
    if contents.string_leaks:
        detail = f"in {contents.string_leaks} places; build with the headers of torch 2.14 or later"
        name = "torch::stable::detail::to<std::string>"
        yield Finding(Kind.STRING_LEAK, True, name, name, None, detail)
