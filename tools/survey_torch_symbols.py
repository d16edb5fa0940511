#!/usr/bin/env python3
r"""Records which unstable symbols of extensions each torch exports, for the audit's predictions.

    python tools/survey_torch_symbols.py --torch ENV/lib/python3.11/site-packages/torch ... \
      --wheel WHEEL ...

Adds the unstable symbols that the wheels need to those already in the survey, looks for all of them
in the given torches (installed CUDA builds, one of each release), and rewrites
tools/abi_audit/unstable_symbols.json: one digit per release, 1 where a library exports the symbol.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from abi_audit.elf import Unreadable, read_library
from abi_audit.inputs import find_artifacts
from abi_audit.namespaces import unstable_name
from abi_audit.survey import DATA


def needed_by(wheel: Path) -> set[str]:
    """The unstable symbols that are undefined in any library of a wheel."""
    found: set[str] = set()
    for artifact in find_artifacts(wheel):
        try:
            with artifact.open() as stream:
                undefined = read_library(stream).undefined
        except Unreadable as error:
            print(f"{artifact.label}: left out: {error}")
            continue
        found |= {s.name for s in undefined if unstable_name(s.name) is not None}
    return found


def exported_by(torch: Path) -> set[str]:
    """Every symbol that an installed torch's libraries export."""
    found: set[str] = set()
    for library in sorted((torch / "lib").glob("lib*.so")):
        with library.open("rb") as stream:
            found |= {s.name for s in read_library(stream).exported}
    return found


def version_of(torch: Path) -> str:
    text = (torch / "version.py").read_text(encoding="utf-8")
    match = re.search(r"__version__ = '([\d.]+)", text)
    assert match is not None, f"{torch} has no version"
    return match[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", type=Path, nargs="+", required=True, help="installed torches")
    parser.add_argument("--wheel", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    known = json.loads(DATA.read_text(encoding="utf-8"))["symbols"] if DATA.exists() else {}
    symbols = set(known).union(*map(needed_by, arguments.wheel))
    torches = sorted(arguments.torch, key=lambda t: tuple(map(int, version_of(t).split("."))))
    columns = [exported_by(torch) for torch in torches]
    rows = {name: "".join("01"[name in column] for column in columns) for name in sorted(symbols)}
    document = {
        "generator": "tools/survey_torch_symbols.py",
        "releases": [version_of(torch) for torch in torches],
        # Exported by no torch at all: another library's, which merely mentions torch's types.
        "symbols": {name: row for name, row in rows.items() if "1" in row},
    }
    DATA.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    changed = sum("0" in row for row in document["symbols"].values())
    print(f"{len(document['symbols'])} symbols, {changed} of them not in every release")


if __name__ == "__main__":
    main()
