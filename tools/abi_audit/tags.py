"""What the names of wheels and libraries promise: which Python, which system."""

from __future__ import annotations

import re
from dataclasses import dataclass

from abi3info.models import PyVersion

from .facts import glibc_of_tag
from .python_api import parse_python

_EXTENSION_SUFFIX = re.compile(r"\.cpython-(\d)(\d+)(t?)-[\w-]+\.so$")


@dataclass(frozen=True)
class Promise:
    """What a wheel's file name says about everything inside; None: nothing."""

    #: The oldest CPython named.
    python: PyVersion | None = None
    #: Whether that is the only one (``cp312-cp312``), or the oldest of many (``cp310-abi3``).
    python_exact: bool = False
    #: The oldest glibc, (2, 28) for ``manylinux_2_28``.
    glibc: tuple[int, int] | None = None
    #: ``manylinux_2_28_x86_64``, as it stands in the name.
    platform: str | None = None


NO_PROMISE = Promise()


def promise_of_wheel(filename: str) -> Promise:
    """Read a wheel's name; an odd name promises nothing."""
    parts = filename.removesuffix(".whl").split("-")
    if len(parts) not in (5, 6):
        return NO_PROMISE
    pythons, abis, platforms = (part.split(".") for part in parts[-3:])
    tags = [parse_python(tag) for tag in pythons if re.fullmatch(r"cp\d\d+", tag)]
    glibcs = [glibc for glibc in map(glibc_of_tag, platforms) if glibc is not None]
    return Promise(
        python=min(tags, default=None),
        python_exact=any(re.fullmatch(r"cp\d\d+t?", abi) for abi in abis),
        # Several tags: the wheel says that it runs on each of them.
        glibc=min(glibcs, default=None),
        platform=".".join(platforms),
    )


def python_of_library(name: str) -> str | None:
    """The one Python that imports a file of this name: "3.12", "3.13t"; None: any, or none."""
    match = _EXTENSION_SUFFIX.search(name)
    return f"{match[1]}.{match[2]}{match[3]}" if match else None
