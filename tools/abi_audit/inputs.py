"""Finds the shared libraries behind the paths that a user names.

A path is a library, a wheel, or a directory with any number of both; what is no path may be the
name of an installed package. An input in which nothing can be audited is an error in itself: a
wheel or directory without libraries was named by mistake.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from .elf import Unreadable
from .tags import NO_PROMISE, Promise, promise_of_wheel

_LIBRARY_NAME = re.compile(r"\.so(\.\d+)*$")
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?")


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
    #: What comes and is installed together: a wheel, a directory, a package.
    group: str = ""
    #: What the wheel's tag says.
    promise: Promise = NO_PROMISE
    #: Why there is nothing to read.
    problem: str | None = None

    @property
    def key(self) -> str:
        """What the file is called in every version of what it comes with."""
        if self.member is not None:
            return self.member
        inside = self.path.is_relative_to(self.group) if self.group else False
        return str(self.path.relative_to(self.group)) if inside else self.name

    def open(self) -> BinaryIO:
        """The library's bytes, seekable.

        Raises:
            Unreadable: no such file, not permitted, or a damaged wheel.
        """
        if self.problem is not None:
            raise Unreadable(self.problem)
        try:
            _refuse_special(self.path)
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
    elif path.exists() or not _could_be_package(path):
        yield Artifact(str(path), path.name, path, group=str(path.parent))
    else:
        yield from _in_package(str(path))


def _in_directory(root: Path) -> Iterator[Artifact]:
    problems: list[OSError] = []
    seen: set[str] = set()
    found = False
    for folder, subfolders, names in os.walk(root, onerror=problems.append):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix != ".whl" and not _LIBRARY_NAME.search(name):
                continue
            found = True
            # libx.so -> libx.so.1 is one library under two names.
            target = os.path.realpath(path)
            if target not in seen:
                seen.add(target)
                yield from (
                    _in_wheel(path)
                    if path.suffix == ".whl"
                    else [Artifact(str(path), name, path, group=str(root))]
                )
    for error in problems:
        label = str(error.filename)
        yield Artifact(label, Path(label).name, Path(label), problem=_reason(error))
    if not found:
        yield Artifact(str(root), root.name, root, problem="no shared library in this directory")


def _in_wheel(path: Path) -> Iterator[Artifact]:
    whole = Artifact(str(path), path.name, path)
    try:
        _refuse_special(path)
        with zipfile.ZipFile(path) as wheel:
            members = sorted(n for n in wheel.namelist() if _LIBRARY_NAME.search(n))
    except (OSError, zipfile.BadZipFile) as error:
        yield Artifact(whole.label, whole.name, path, problem=_reason(error))
        return
    if not members:
        yield Artifact(whole.label, whole.name, path, problem="no shared library in this wheel")
    promise = promise_of_wheel(path.name)
    for member in members:
        name = member.rpartition("/")[2]
        yield Artifact(f"{path}:{member}", name, path, member, group=str(path), promise=promise)


def _could_be_package(path: Path) -> bool:
    name = str(path)
    return _PACKAGE_NAME.fullmatch(name) is not None and not _LIBRARY_NAME.search(name)


def _in_package(name: str) -> Iterator[Artifact]:
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        problem = "no such file or directory, and no installed package of this name"
        yield Artifact(name, name, Path(name), problem=problem)
        return
    files = sorted(str(f) for f in package.files or () if _LIBRARY_NAME.search(f.name))
    if not files:
        problem = "no shared library in this installed package"
        yield Artifact(name, name, Path(name), problem=problem)
    promise = _promise_of_package(package)
    for file in files:
        path = Path(str(package.locate_file(file)))
        yield Artifact(str(path), path.name, path, group=f"package {name}", promise=promise)


def _promise_of_package(package: metadata.Distribution) -> Promise:
    """What the wheel that was installed promised; it says so in a file of its own."""
    tags = re.findall(r"^Tag: (\S+?)-(\S+?)-(\S+)$", package.read_text("WHEEL") or "", re.MULTILINE)
    if not tags:
        return NO_PROMISE
    joined = (".".join(dict.fromkeys(column)) for column in zip(*tags, strict=True))
    return promise_of_wheel(f"x-1-{'-'.join(joined)}.whl")


def _refuse_special(path: Path) -> None:
    """Opening a pipe would wait for ever, and a device may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, zipfile.BadZipFile):
        return f"damaged wheel: {error}"
    return str(error) or type(error).__name__
