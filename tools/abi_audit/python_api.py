"""Tells the Python C-API that every later Python keeps (the limited API) from the rest."""

from __future__ import annotations

import re
from functools import cache

import abi3info
from abi3info.models import PyVersion

#: The Python that a library promises where neither the wheel's tag nor the caller says it.
DEFAULT_PYTHON = PyVersion(3, 10)

_C_API = re.compile(r"_?P[yY]")


def is_python_api(symbol: str) -> bool:
    """Whether a C symbol is named like one of CPython's."""
    return _C_API.match(symbol) is not None


@cache
def _added() -> dict[str, PyVersion]:
    members = (*abi3info.FUNCTIONS.values(), *abi3info.DATAS.values())
    return {member.symbol.name: member.added for member in members}


def limited_api_since(symbol: str) -> PyVersion | None:
    """The Python whose limited API first had the symbol, or None if none has it."""
    return _added().get(symbol)


def parse_python(text: str) -> PyVersion:
    """``"3.10"`` or ``"cp310"`` as a version."""
    match = re.fullmatch(r"(?:cp)?(\d)\.?(\d+)", text)
    if match is None:
        raise ValueError(f"not a Python version: {text!r} (expected for example 3.10 or cp310)")
    return PyVersion(int(match[1]), int(match[2]))
