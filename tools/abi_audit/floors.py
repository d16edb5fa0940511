"""The oldest C and C++ runtime that a library loads with, and the symbols that decide it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .elf import DynamicSymbol

_NUMBERED = re.compile(r"(GLIBC|GLIBCXX|CXXABI|GCC)_(\d+(?:\.\d+)*)")


@dataclass(frozen=True)
class RuntimeFloor:
    """The newest symbol version of one family; older runtimes refuse the library."""

    #: "GLIBC", "GLIBCXX", "CXXABI" or "GCC".
    family: str
    version: tuple[int, ...]
    #: Mangled symbols that ask for this very version.
    pinned_by: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.family}_{'.'.join(map(str, self.version))}"


def runtime_floors(symbols: Iterable[DynamicSymbol]) -> tuple[RuntimeFloor, ...]:
    """One floor per family that the undefined symbols ask for, by name of the family."""
    found: dict[str, dict[tuple[int, ...], list[str]]] = {}
    for symbol in symbols:
        match = _NUMBERED.fullmatch(symbol.version[0]) if symbol.version else None
        if match is not None:
            version = tuple(map(int, match[2].split(".")))
            found.setdefault(match[1], {}).setdefault(version, []).append(symbol.name)
    return tuple(
        RuntimeFloor(family, max(versions), tuple(versions[max(versions)]))
        for family, versions in sorted(found.items())
    )
