"""Reads the dynamic symbols and dependencies of one shared library.

Fails closed: whatever cannot be read completely raises `Unreadable`, because a library whose
symbols were not seen must never count as one without bad symbols.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import Section, Symbol, SymbolTableSection

# STB_GNU_UNIQUE has the number of STB_LOOS, which is the name pyelftools gives it.
_BINDINGS_SEEN_BY_LOADER = ("STB_GLOBAL", "STB_WEAK", "STB_LOOS")
_EXPORTED_VISIBILITIES = ("STV_DEFAULT", "STV_PROTECTED")


class Unreadable(Exception):
    """The input could not be read; the message is one sentence that says why."""


@dataclass(frozen=True)
class DynamicSymbol:
    """One name in the dynamic symbol table, as mangled."""

    name: str
    weak: bool
    #: The version it is bound to and the library that must have it: ("GLIBC_2.34", "libc.so.6").
    version: tuple[str, str] | None = None


@dataclass(frozen=True)
class SharedLibrary:
    """The part of a shared library that the dynamic loader acts on."""

    undefined: tuple[DynamicSymbol, ...]
    exported: tuple[DynamicSymbol, ...]
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    soname: str | None


def read_library(stream: BinaryIO) -> SharedLibrary:
    """Read one ELF shared library.

    Args:
        stream: seekable, positioned anywhere, open for as long as the call lasts.

    Raises:
        Unreadable: not ELF, not a shared library, truncated, or without dynamic symbols.
    """
    try:
        return _read(stream)
    except Unreadable:
        raise
    except Exception as error:
        # A damaged file can make the parser raise nearly anything (struct, construct, Unicode,
        # index and assertion errors); each of them means "could not read".
        detail = str(error) or "malformed"
        raise Unreadable(f"not a readable ELF file ({type(error).__name__}: {detail})") from error


def _read(stream: BinaryIO) -> SharedLibrary:
    file_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    elf = ELFFile(stream)
    if elf["e_type"] != "ET_DYN":
        raise Unreadable(f"not a shared library ({elf['e_type']})")
    _check_extents(elf, file_bytes)

    dynamic = next((s for s in elf.iter_segments() if isinstance(s, DynamicSegment)), None)
    if dynamic is None:
        raise Unreadable("no dynamic segment")
    table = _symbol_table(elf, dynamic)
    symbols = list(table.iter_symbols())
    if not any(symbol.name for symbol in symbols):
        raise Unreadable("the dynamic symbol table is empty (stripped?)")
    tags = list(dynamic.iter_tags())
    versions = _versions(elf, symbols, {t.entry.d_tag for t in tags})
    return SharedLibrary(
        undefined=_unique(symbols, versions, _is_undefined),
        exported=_unique(symbols, versions, _is_exported),
        needed=tuple(t.needed for t in tags if t.entry.d_tag == "DT_NEEDED"),
        rpath=tuple(t.rpath for t in tags if t.entry.d_tag == "DT_RPATH"),
        runpath=tuple(t.runpath for t in tags if t.entry.d_tag == "DT_RUNPATH"),
        soname=next((t.soname for t in tags if t.entry.d_tag == "DT_SONAME"), None),
    )


def _check_extents(elf: ELFFile, file_bytes: int) -> None:
    """Refuse a file that ends before what its headers describe."""
    headers_end = elf["e_shoff"] + elf["e_shnum"] * elf["e_shentsize"]
    ends = [headers_end]
    ends += [s["p_offset"] + s["p_filesz"] for s in elf.iter_segments()]
    if headers_end <= file_bytes:
        ends += [
            s["sh_offset"] + s["sh_size"]
            for s in elf.iter_sections()
            if s["sh_type"] not in ("SHT_NOBITS", "SHT_NULL")
        ]
    if max(ends) > file_bytes:
        raise Unreadable(f"truncated: {file_bytes} bytes, its headers describe {max(ends)}")


def _symbol_table(elf: ELFFile, dynamic: DynamicSegment) -> SymbolTableSection:
    """The table the loader uses; a section that is not that table says nothing about loading."""
    table = next((s for s in elf.iter_sections() if s["sh_type"] == "SHT_DYNSYM"), None)
    if not isinstance(table, SymbolTableSection):
        raise Unreadable("no dynamic symbol table (stripped?)")
    _check_place(elf, dynamic, "DT_SYMTAB", table)
    _check_place(elf, dynamic, "DT_STRTAB", elf.get_section(table["sh_link"]))
    if table.num_symbols() < _symbols_hashed(dynamic):
        raise Unreadable("its section headers end the symbol table before the loader's ends")
    return table


def _check_place(elf: ELFFile, dynamic: DynamicSegment, tag: str, section: Section) -> None:
    """The section is where the loader looks, in memory and in the file."""
    addresses = [t["d_ptr"] for t in dynamic.iter_tags(tag)]
    offsets = [next(elf.address_offsets(address), None) for address in addresses]
    if (addresses, offsets) != ([section["sh_addr"]], [section["sh_offset"]]):
        raise Unreadable("its section headers name another symbol table than the loader's")


def _symbols_hashed(dynamic: DynamicSegment) -> int:
    """How many symbols the loader's hash table speaks of: all, where anything is exported."""
    if any(next(dynamic.iter_tags(tag), None) for tag in ("DT_GNU_HASH", "DT_HASH")):
        return int(dynamic.num_symbols())
    return 0


def _is_undefined(symbol: Symbol) -> bool:
    return (
        symbol["st_shndx"] == "SHN_UNDEF" and symbol["st_info"]["bind"] in _BINDINGS_SEEN_BY_LOADER
    )


def _is_exported(symbol: Symbol) -> bool:
    return (
        symbol["st_shndx"] != "SHN_UNDEF"
        and symbol["st_info"]["bind"] in _BINDINGS_SEEN_BY_LOADER
        and symbol["st_other"]["visibility"] in _EXPORTED_VISIBILITIES
    )


def _versions(elf: ELFFile, symbols: list[Symbol], tags: set[str]) -> dict[str, tuple[str, str]]:
    """The version that each undefined symbol asks for, by name."""
    if "DT_VERNEED" not in tags:
        return {}
    needed = next((s for s in elf.iter_sections() if isinstance(s, GNUVerNeedSection)), None)
    indices = next((s for s in elf.iter_sections() if isinstance(s, GNUVerSymSection)), None)
    if needed is None or indices is None:
        raise Unreadable("its section headers do not name the symbol versions that the loader uses")
    by_index = {
        version["vna_other"]: (version.name, library.name)
        for library, versions in needed.iter_versions()
        for version in versions
    }
    found = {}
    for number, symbol in enumerate(symbols):
        if symbol.name and symbol["st_shndx"] == "SHN_UNDEF":
            index = indices.get_symbol(number)["ndx"]
            if index in by_index:
                found[symbol.name] = by_index[index]
    return found


def _unique(
    symbols: list[Symbol],
    versions: dict[str, tuple[str, str]],
    wanted: Callable[[Symbol], bool],
) -> tuple[DynamicSymbol, ...]:
    """One entry per mangled name, in order of name; weak only if every occurrence is weak."""
    weak: dict[str, bool] = {}
    for symbol in symbols:
        if symbol.name and wanted(symbol):
            is_weak = symbol["st_info"]["bind"] == "STB_WEAK"
            weak[symbol.name] = is_weak and weak.get(symbol.name, True)
    return tuple(DynamicSymbol(name, weak[name], versions.get(name)) for name in sorted(weak))
