"""What the tests of the audit share: sources of tiny libraries, wheels, and a run's JSON."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

import audit_abi

ANY = 'extern "C" int entry() { return 1; }'


def call(declaration: str, expression: str) -> str:
    """A library whose only use of anything is `expression`."""
    return f'{declaration}\nextern "C" void entry() {{ {expression}; }}\n'


def shim(name: str, attribute: str = "") -> str:
    return call(f'extern "C" {attribute} void {name}();', f"{name}()")


def audit_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    """The JSON document of a run; its exit code is checked against the status returned."""
    status = audit_abi.main(["--json", *map(str, arguments)])
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == status
    return document


def findings_of(document: dict) -> list[tuple]:
    keys = ("kind", "display", "weak", "violation")
    return [tuple(f[k] for k in keys) for lib in document["libraries"] for f in lib["findings"]]


def make_wheel(path: Path, members: dict[str, Path | bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content if isinstance(content, bytes) else content.read_bytes())
    return path
