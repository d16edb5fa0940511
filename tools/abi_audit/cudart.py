"""Finds a CUDA runtime that is linked into a library, and its version.

A static runtime brings no symbol and no dependency, but it decides which drivers the library runs
with. Its error texts are in the file; its version is the number that it passes to the driver
whenever it asks for an entry point, in a helper that begins with the same instructions in the
runtimes of CUDA 12.9 and 13.0 (x86-64).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Both texts, because one alone could be quoted by anybody.
_MARKERS = (b"Insufficient driver: %d < %d\0", b"cudaErrorCudartUnloading\0")
# mov r8, rcx; mov rcx, rdx; mov edx, <version>
_ASKS_FOR_VERSION = re.compile(rb"\x49\x89\xc8\x48\x89\xd1\xba(..)\x00\x00", re.DOTALL)


@dataclass(frozen=True)
class StaticRuntime:
    """A CUDA runtime inside a library; version (13, 0), or None where it could not be read."""

    version: tuple[int, int] | None


def find_static_runtime(constants: bytes, code: bytes) -> StaticRuntime | None:
    """The runtime linked into a library.

    Args:
        constants: the section .rodata.
        code: the section .text.
    """
    if not all(marker in constants for marker in _MARKERS):
        return None
    numbers = {int.from_bytes(m[1], "little") for m in _ASKS_FOR_VERSION.finditer(code)}
    versions = {n for n in numbers if 9000 <= n < 30000 and n % 10 == 0}
    if len(versions) != 1:
        return StaticRuntime(None)
    number = versions.pop()
    return StaticRuntime((number // 1000, number % 1000 // 10))
