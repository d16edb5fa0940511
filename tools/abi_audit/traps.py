"""Finds known mistakes of torch's own headers that are compiled into an extension.

The leak: up to torch 2.13 the header's conversion of a `str` argument made its copy with `new` and
never deleted it, about 100 bytes a call on every torch that the extension runs with later
(https://github.com/pytorch/pytorch/issues/191340). The conversion is inline, so it is found in the
machine code: between the calls of torch_string_c_str and torch_delete_string the fixed header has
no `operator new(32)`, where 32 is the size of a std::string, and the leaking one has.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section

_READS_STRING, _DELETES_STRING, _NEW = "torch_string_c_str", "torch_delete_string", "_Znwm"
_SHF_EXECINSTR = 4
_CALL, _CALL_INDIRECT, _JUMP_INDIRECT = b"\xe8", b"\xff\x15", b"\xff\x25"
_SIZE_OF_STRING = b"\xbf\x20\x00\x00\x00"  # mov edi, 32
# The size is set a few instructions before the call (exception tables lie elsewhere).
_ARGUMENT_DISTANCE = 48
_CONVERSION_LENGTH = 4096


def count_string_leaks(elf: ELFFile) -> int | None:
    """How many conversions of a `str` leak; None where that cannot be seen (not x86-64)."""
    if elf.get_machine_arch() != "x64":
        return None
    slots = _slots(elf, {_READS_STRING, _DELETES_STRING, _NEW})
    if {_READS_STRING, _NEW} - set(slots.values()):
        return 0
    sections = [s for s in elf.iter_sections() if s["sh_flags"] & _SHF_EXECINSTR]
    contents = {s.name: s.data() for s in sections}
    stubs = {
        address: name
        for section in sections
        if section.name.startswith(".plt")
        for address, name in _stubs(section, contents[section.name], slots)
    }
    return sum(
        _leaks_in(contents[section.name], section["sh_addr"], stubs, slots)
        for section in sections
        if not section.name.startswith(".plt")
    )


def _slots(elf: ELFFile, names: set[str]) -> dict[int, str]:
    """The addresses of the pointers through which these functions are called."""
    found = {}
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection) or section["sh_link"] == 0:
            continue
        symbols = elf.get_section(section["sh_link"])
        wanted = {n for n, s in enumerate(symbols.iter_symbols()) if s.name in names}
        for relocation in section.iter_relocations() if wanted else ():
            if relocation["r_info_sym"] in wanted:
                name = symbols.get_symbol(relocation["r_info_sym"]).name
                found[relocation["r_offset"]] = name
    return found


def _stubs(section: Section, code: bytes, slots: dict[int, str]) -> Iterator[tuple[int, str]]:
    """The entries of one procedure linkage table that jump through a slot."""
    start = section["sh_addr"]
    size = 8 if section.name == ".plt.got" and section["sh_entsize"] == 8 else 16
    for jump in _occurrences(code, _JUMP_INDIRECT):
        target = _relative(code, start, jump + 2)
        if target in slots:
            yield start + jump // size * size, slots[target]


def _calls(code: bytes, start: int, stubs: dict[int, str], slots: dict[int, str]) -> dict[int, str]:
    """The offsets behind every call of one of the functions."""
    found = {}
    for opcode, targets in ((_CALL, stubs), (_CALL_INDIRECT, slots)):
        for offset in _occurrences(code, opcode):
            target = _relative(code, start, offset + len(opcode))
            if target in targets:
                found[offset] = targets[target]
    return found


def _leaks_in(code: bytes, start: int, stubs: dict[int, str], slots: dict[int, str]) -> int:
    calls = _calls(code, start, stubs, slots)
    offsets = sorted(calls)
    leaks = 0
    for position, offset in enumerate(offsets):
        if calls[offset] != _READS_STRING:
            continue
        end = bisect_left(offsets, offset + _CONVERSION_LENGTH)
        for later in offsets[position + 1 : end]:
            if calls[later] != _NEW:
                break
            if _SIZE_OF_STRING in code[max(offset, later - _ARGUMENT_DISTANCE) : later]:
                leaks += 1
                break
    return leaks


def _occurrences(code: bytes, opcode: bytes) -> Iterator[int]:
    position = code.find(opcode)
    while 0 <= position <= len(code) - len(opcode) - 4:
        yield position
        position = code.find(opcode, position + 1)


def _relative(code: bytes, start: int, offset: int) -> int:
    """What a 4-byte displacement at `offset` points at; it counts from its own end."""
    (displacement,) = struct.unpack_from("<i", code, offset)
    return start + offset + 4 + displacement
