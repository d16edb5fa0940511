"""Which releases of torch export the unstable symbols that published extensions use.

No release promises them, but what the releases so far have is a fact: unstable_symbols.json holds
it for the symbols that were met in wheels, and tools/survey_torch_symbols.py makes that file.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("unstable_symbols.json")


@cache
def _survey() -> tuple[tuple[tuple[int, int], ...], dict[str, str]]:
    data = json.loads(DATA.read_text(encoding="utf-8"))
    releases = tuple((int(r.split(".")[0]), int(r.split(".")[1])) for r in data["releases"])
    return releases, data["symbols"]


def releases_with(symbol: str) -> frozenset[tuple[int, int]] | None:
    """The releases whose libraries export a mangled symbol; None: nobody has looked."""
    releases, symbols = _survey()
    present = symbols.get(symbol)
    if present is None:
        return None
    return frozenset(r for r, mark in zip(releases, present, strict=True) if mark == "1")
