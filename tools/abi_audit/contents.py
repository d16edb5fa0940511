"""Reads what a library holds besides symbols: GPU code, a CUDA runtime, compiled-in mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from elftools.elf.elffile import ELFFile

from . import fatbin
from .cudart import StaticRuntime, find_static_runtime
from .elf import Unreadable
from .fatbin import GpuCode
from .traps import count_string_leaks


@dataclass(frozen=True)
class Contents:
    """What was found inside a library."""

    gpu_code: tuple[GpuCode, ...]
    static_runtime: StaticRuntime | None
    #: Conversions of `str` arguments that leak; None where that cannot be seen.
    string_leaks: int | None


def read_contents(stream: BinaryIO) -> Contents:
    """Read a library that `elf.read_library` has accepted.

    Raises:
        Unreadable: a section is damaged, so that what it holds cannot be told.
    """
    try:
        return _read(ELFFile(stream))
    except Exception as error:
        detail = str(error) or "malformed"
        raise Unreadable(f"its contents cannot be read ({type(error).__name__}: {detail})") from (
            error
        )


def _read(elf: ELFFile) -> Contents:
    code = [fatbin.read_fatbin(_section(elf, name)) for name in fatbin.SECTIONS]
    constants = _section(elf, ".rodata")
    return Contents(
        gpu_code=fatbin.merge(*code),
        static_runtime=find_static_runtime(constants, _section(elf, ".text")),
        string_leaks=count_string_leaks(elf),
    )


def _section(elf: ELFFile, name: str) -> bytes:
    section = elf.get_section_by_name(name)
    return b"" if section is None or section["sh_type"] == "SHT_NOBITS" else section.data()
