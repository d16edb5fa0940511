"""Finds the shared libraries behind the paths that a user names.

A path is a library, a wheel, or a directory with any number of both. An input in which nothing can
be audited is an error in itself: a wheel or directory without libraries was named by mistake.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from abi3info.models import PyVersion

from .elf import Unreadable
from .python_api import python_of_wheel

_LIBRARY_NAME = re.compile(r"\.so(\.\d+)*$")


@dataclass(frozen=True)
class Artifact:
    """One thing to audit: a library, or what stands in its place and cannot be read."""

    #: How reports call it: the path, for a member of a wheel ``wheel:member``.
    label: str
    #: The file's own name, by which the policy knows it.
    name: str
    path: Path
    #: The member's name inside the wheel at `path`; None for a file of its own.
    member: str | None = None
    #: The Python that the wheel's tag promises.
    python: PyVersion | None = None
    #: Why there is nothing to read.
    problem: str | None = None

    def open(self) -> BinaryIO:
        """The library's bytes, seekable.

        Raises:
            Unreadable: no such file, not permitted, or a damaged wheel.
        """
        if self.problem is not None:
            raise Unreadable(self.problem)
        try:
            if self.member is None:
                return self.path.open("rb")
            with zipfile.ZipFile(self.path) as wheel:
                return io.BytesIO(wheel.read(self.member))
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            # RuntimeError: encrypted, or (NotImplementedError) an unknown compression.
            raise Unreadable(_reason(error)) from error


def find_artifacts(path: Path) -> Iterator[Artifact]:
    """Every library behind `path`, at least one artifact whatever `path` is."""
    if path.is_dir():
        yield from _in_directory(path)
    elif path.suffix == ".whl":
        yield from _in_wheel(path)
    else:
        yield Artifact(str(path), path.name, path)


def _in_directory(root: Path) -> Iterator[Artifact]:
    problems: list[OSError] = []
    seen: set[Path] = set()
    found = False
    for folder, subfolders, names in os.walk(root, onerror=problems.append):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix != ".whl" and not _LIBRARY_NAME.search(name):
                continue
            found = True
            # libx.so -> libx.so.1 is one library under two names.
            target = path.resolve()
            if target not in seen:
                seen.add(target)
                yield from find_artifacts(path)
    for error in problems:
        label = str(error.filename)
        yield Artifact(label, Path(label).name, Path(label), problem=_reason(error))
    if not found:
        yield Artifact(str(root), root.name, root, problem="no shared library in this directory")


def _in_wheel(path: Path) -> Iterator[Artifact]:
    whole = Artifact(str(path), path.name, path)
    try:
        with zipfile.ZipFile(path) as wheel:
            members = sorted(n for n in wheel.namelist() if _LIBRARY_NAME.search(n))
    except (OSError, zipfile.BadZipFile) as error:
        yield Artifact(whole.label, whole.name, path, problem=_reason(error))
        return
    if not members:
        yield Artifact(whole.label, whole.name, path, problem="no shared library in this wheel")
    python = python_of_wheel(path.name)
    for member in members:
        name = member.rpartition("/")[2]
        yield Artifact(f"{path}:{member}", name, path, member=member, python=python)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, zipfile.BadZipFile):
        return f"damaged wheel: {error}"
    return str(error) or type(error).__name__
