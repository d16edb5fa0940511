#!/usr/bin/env python3
"""Checks that no unstable torch header is compiled in, and that csrc includes as it should.

    python tools/check_includes.py build/native

An extension can be free of unstable symbols and still have unstable code inlined from a header.
The compiler's dependency files (``-MD``) list every header of every object, so they are the proof.
Exit status: 0 clean, 1 something is included that must not be, 2 nothing or not all could be read.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from abi_audit.headers import (
    Dependency,
    is_torch_header,
    is_unstable_header,
    read_build,
    read_text,
)
from abi_audit.headers import UnreadableSource as Unreadable

_ROOT = Path(__file__).resolve().parent.parent

#: The only file that may include torch (relative to the source folder).
_STABLE_H = Path("libtorch_stable/common/stable.h")

_SOURCE_SUFFIXES = {".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".inc", ".inl"}

_INCLUDE = re.compile(r"\s*#\s*(?:include|include_next|import)\b\s*(.*)")
_INCLUDED_NAME = re.compile(r'<([^>]+)>|"([^"]+)"')


@dataclass(frozen=True)
class Finding:
    """One thing that must not be; `line` counts from 1."""

    path: Path
    line: int
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind}: {self.what}"


def check_dependencies(dependencies: list[Dependency]) -> Iterator[Finding]:
    """One finding per unstable header, at the first place that names it."""
    places: dict[str, list[Dependency]] = {}
    for dependency in dependencies:
        if is_unstable_header(dependency.header):
            places.setdefault(dependency.header, []).append(dependency)
    for header, named in places.items():
        objects = len({dependency.path for dependency in named})
        what = f"{header} (in {objects} dependency file{'s' if objects > 1 else ''})"
        yield Finding(named[0].path, named[0].line, "unstable-header", what)


def read_sources(source: Path) -> list[Path]:
    """Every C++ and CUDA file below the source folder.

    Raises:
        Unreadable: there is none.
    """
    files = sorted(p for p in source.rglob("*") if p.suffix in _SOURCE_SUFFIXES and p.is_file())
    if not files:
        raise Unreadable(f"{source}: no source file")
    return files


def check_source(path: Path, may_include_torch: bool) -> Iterator[Finding]:
    """Check the include lines of one file.

    Lines inside block comments count as well: an include in a comment is dead code.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        include = _INCLUDE.match(line)
        if include is None:
            continue
        named = _INCLUDED_NAME.match(include[1])
        if named is None:
            yield Finding(path, number, "computed-include", include[1])
            continue
        header = named[1] or named[2]
        if ".." in header.split("/"):
            yield Finding(path, number, "climbing-include", header)
        if is_unstable_header(header):
            yield Finding(path, number, "unstable-header", header)
        elif is_torch_header(header) and not may_include_torch:
            yield Finding(path, number, "torch-include", f"{header}, only {_STABLE_H} may")


def main(argv: Sequence[str] | None = None) -> int:
    """Check a build and its sources, print one finding per line, return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("build", type=Path, help="build folder with the objects' *.d files")
    parser.add_argument(
        "--source", type=Path, default=_ROOT / "csrc", help="source folder (default: csrc)"
    )
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not exist in the terminal's encoding.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        dependencies = read_build(args.build)
        sources = read_sources(args.source)
        findings = list(check_dependencies(dependencies))
        for path in sources:
            findings += check_source(path, path == args.source / _STABLE_H)
    except Unreadable as error:
        print(f"unreadable: {error}")
        return 2
    for finding in findings:
        print(finding)
    objects = len({dependency.path for dependency in dependencies})
    headers = len({dependency.header for dependency in dependencies})
    print(
        f"{len(findings)} findings in {objects} dependency files with {headers} headers "
        f"and {len(sources)} source files"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
