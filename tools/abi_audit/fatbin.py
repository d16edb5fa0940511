"""Lists the GPU code in a library: which architectures have machine code, which have PTX.

nvcc puts one or more containers into the section .nv_fatbin (and, for relocatable device code,
__nv_relfatbin): a header with a magic number and a size, then entries with a header of their own,
whose fields are read here. The code itself may be compressed; nothing needs to be unpacked.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass

#: Sections that hold containers.
SECTIONS = (".nv_fatbin", "__nv_relfatbin")

_CONTAINER = struct.Struct("<IHHQ")  # magic, version, header size, size of all entries
_MAGIC = 0xBA55ED50
_MAGIC_BYTES = struct.pack("<I", _MAGIC)
# kind, version, header size, size, 8 bytes, 2 version numbers, architecture, 8 bytes, flags
_ENTRY = struct.Struct("<HHIQ8xHHI8xI")
_PTX, _SASS = 1, 2
# Set where code uses what only this architecture or its family has (seen with nvcc 13.0).
_SUFFIXES = ((0x00100000, "a"), (0x00200000, "f"))


# Kind, architecture, suffix -> the size of every entry.
_Sizes = dict[tuple[str, int, str], list[int]]


class DamagedFatbin(Exception):
    """The section does not hold what its headers say."""


@dataclass(frozen=True, order=True)
class GpuCode:
    """All code of one kind for one architecture."""

    #: ``"sass"`` runs on this architecture (and newer minors); ``"ptx"`` on it and all newer ones.
    kind: str
    #: ``"sm_90a"``, ``"compute_80"``.
    architecture: str
    entries: int
    #: As it lies in the file: compressed, where nvcc was told so.
    size_bytes: int


def read_fatbin(section: bytes) -> tuple[GpuCode, ...]:
    """The architectures in one section, sorted.

    Raises:
        DamagedFatbin: an entry reaches beyond its container, or none could be found.
    """
    found: _Sizes = defaultdict(list)
    position = section.find(_MAGIC_BYTES)
    if position < 0 and section.strip(b"\0"):
        raise DamagedFatbin("no container in a section for GPU code")
    while position >= 0:
        end = _read_container(section, position, found)
        position = section.find(_MAGIC_BYTES, end)
    return tuple(
        GpuCode(
            *(kind, f"{'compute' if kind == 'ptx' else 'sm'}_{number}{suffix}"),
            *(len(sizes), sum(sizes)),
        )
        for (kind, number, suffix), sizes in sorted(found.items())
    )


def merge(*groups: tuple[GpuCode, ...]) -> tuple[GpuCode, ...]:
    """The code of several sections as one list."""
    same: dict[tuple[str, int, str], list[GpuCode]] = defaultdict(list)
    for code in (code for group in groups for code in group):
        same[code.kind, _number(code.architecture), code.architecture].append(code)
    return tuple(
        GpuCode(kind, name, sum(c.entries for c in codes), sum(c.size_bytes for c in codes))
        for (kind, _, name), codes in sorted(same.items())
    )


def _number(architecture: str) -> int:
    return int("".join(c for c in architecture if c.isdigit()))


def _read_container(section: bytes, start: int, found: _Sizes) -> int:
    """Note the entries of the container at `start`; where it ends."""
    try:
        _, _, header, size = _CONTAINER.unpack_from(section, start)
        position, end = start + header, start + header + size
        if end > len(section):
            raise DamagedFatbin("a container of GPU code is longer than its section")
        while position < end:
            kind, _, header, size, _, _, architecture, flags = _ENTRY.unpack_from(section, position)
            if header < _ENTRY.size or position + header + size > end:
                raise DamagedFatbin("an entry of GPU code is longer than its container")
            if kind in (_PTX, _SASS):
                suffix = next((letter for bit, letter in _SUFFIXES if flags & bit), "")
                name = "ptx" if kind == _PTX else "sass"
                found[name, architecture, suffix].append(header + size)
            position += header + size
    except struct.error as error:
        raise DamagedFatbin("GPU code that ends before its header") from error
    return end
