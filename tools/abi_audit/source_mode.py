"""Lists the translation units that still include unstable headers of torch: what is left to do.

Two sources of truth. The compiler's dependency files (``-MD``) name every header that it has read,
so a unit counts even where the header comes through another one; the place reported is the include
line, in the project's own files, that brings it in. Without dependency files the include lines
themselves are read, which sees direct includes and those through the project's own headers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from .headers import (
    Dependency,
    UnreadableSource,
    is_unstable_header,
    read_build,
    read_dependencies,
    read_text,
)

_UNITS = {".c", ".cc", ".cpp", ".cu", ".cxx", ".hip", ".mm"}
_HEADERS = {".cuh", ".h", ".hh", ".hpp", ".inc", ".inl"}
# What a comment can begin in, longest first: an include's name and a string are no comments.
_CODE = re.compile(
    r"#[ \t]*(?:include|include_next|import)[ \t]*<[^>\n]*>"
    r"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    r"|(?P<comment>//[^\n]*|/\*.*?(?:\*/|\Z))",
    re.DOTALL,
)
_INCLUDE = re.compile(r"\s*#\s*(?:include|include_next|import)\s*[<\"]([^>\"]+)[>\"]")


@dataclass(frozen=True, order=True)
class Include:
    """One include line that brings an unstable header into a translation unit."""

    #: The file and line; line 0: a dependency file names the header and no include line was found.
    path: Path
    line: int
    header: str


@dataclass(frozen=True)
class SourceReport:
    """What is left to migrate."""

    #: All translation units that were read.
    units: tuple[Path, ...]
    #: The include lines that reach an unstable header, by the units that they reach it for.
    unstable: dict[Path, tuple[Include, ...]]

    @property
    def includes(self) -> list[Include]:
        """Every offending line once, in order."""
        return sorted({include for found in self.unstable.values() for include in found})


def read_sources(paths: list[Path]) -> SourceReport:
    """Read source files, folders of sources, and folders with dependency files.

    Raises:
        UnreadableSource: a file cannot be read, or nothing is there to read.
    """
    builds = [path for path in paths if _files(path, {".d"})]
    sources = [path for path in paths if path not in builds]
    compiled = _from_dependencies([found for build in builds for found in _dependencies(build)])
    known = {unit.resolve() for unit in compiled.units}
    units = [f for path in sources for f in _files(path, _UNITS) if f.resolve() not in known]
    if not units and not builds:
        raise UnreadableSource(f"{', '.join(map(str, paths))}: no source and no dependency file")
    roots = [path if path.is_dir() else path.parent for path in sources]
    found = {unit: tuple(sorted(_reached(unit, roots, {}))) for unit in units}
    unstable = compiled.unstable | {unit: bad for unit, bad in found.items() if bad}
    return SourceReport((*compiled.units, *units), unstable)


def _files(path: Path, suffixes: set[str]) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in suffixes else []
    if not path.is_dir():
        raise UnreadableSource(f"{path}: no such file or directory")
    return sorted(f for f in path.rglob("*") if f.suffix in suffixes and f.is_file())


def _dependencies(build: Path) -> list[list[Dependency]]:
    """The dependencies of each object of a build folder, or those in one file."""
    found = read_build(build) if build.is_dir() else read_dependencies(build)
    return [list(group) for _, group in groupby(found, key=lambda d: d.path)]


def _from_dependencies(objects: list[list[Dependency]]) -> SourceReport:
    units: list[Path] = []
    unstable: dict[Path, tuple[Include, ...]] = {}
    for dependencies in objects:
        file = dependencies[0].path
        headers = [d.header for d in dependencies]
        unit = next((h for h in headers if Path(h).suffix in _UNITS), None)
        if unit is None:
            raise UnreadableSource(f"{file}: names no source file")
        units.append(Path(unit))
        bad = {header for header in headers if is_unstable_header(header)}
        if bad:
            own = [h for h in headers if not is_unstable_header(h) and not _is_installed(h)]
            lines = {i for h in own for i in _lines(_from(file, h)) if is_unstable_header(i.header)}
            unstable[Path(unit)] = tuple(sorted(lines)) or (Include(file, 0, sorted(bad)[0]),)
    return SourceReport(tuple(units), unstable)


def _from(file: Path, header: str) -> Path:
    """A header that a dependency file names relative to where the compiler ran."""
    candidates = [Path(header), *(parent / header for parent in file.parents)]
    return next((path for path in candidates if path.is_file()), Path(header))


def _is_installed(header: str) -> bool:
    """Whether a header belongs to the system, to torch or to CUDA, and not to the project."""
    return "/site-packages/" in header or header.startswith(("/usr/", "/opt/"))


def _lines(path: Path) -> Iterator[Include]:
    for number, line in enumerate(_without_comments(read_text(path)).split("\n"), start=1):
        include = _INCLUDE.match(line)
        if include is not None:
            yield Include(path, number, include[1])


def _without_comments(text: str) -> str:
    """The same lines; what was commented out is gone."""

    def shown(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n") if match["comment"] else match[0]

    return _CODE.sub(shown, text)


def _reached(unit: Path, roots: list[Path], seen: dict[Path, None]) -> set[Include]:
    """The unstable include lines of a file and of the project's headers that it includes."""
    if unit in seen:
        return set()
    seen[unit] = None
    found = set()
    for include in _lines(unit):
        if is_unstable_header(include.header):
            found.add(include)
            continue
        for folder in (unit.parent, *roots):
            own = Path(os.path.normpath(folder / include.header))
            if own.suffix in _HEADERS and own.is_file():
                found |= _reached(own, roots, seen)
                break
    return found
