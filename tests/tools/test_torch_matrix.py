"""tools/torch_matrix.py and its table: what was not run is never shown as if it had been."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import torch_matrix

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import render  # noqa: E402


@pytest.mark.parametrize(
    ("release", "cuda"),
    [
        ("2.13.0+cpu", None),
        ("2.13.0+cu126", "12.6"),
        ("2.10.0", "12.8"),
        ("nightly+cu130", "13.0"),
        ("nightly", "what it says"),
    ],
)
def test_cuda_that_a_build_must_report(release: str, cuda: str | None) -> None:
    assert torch_matrix.cuda_of(release, "what it says") == cuda


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("ERROR: Could not find torch==2.15.0+cu126 (from versions: 2.13.0, 2.14.0+cu126)", True),
        # The index was not read, or the machine has no network.
        ("ERROR: Could not find torch==2.15.0+cu126 (from versions: 2.13.0, 2.14.0+cu128)", False),
        ("ERROR: Could not find torch==2.15.0+cu126 (from versions: none)", False),
        ("", False),
    ],
)
def test_what_was_never_published_is_no_failure(output: str, answer: bool) -> None:
    assert torch_matrix.not_published("2.15.0+cu126", output) == answer
    assert not torch_matrix.not_published("2.15.0", output)


def cell(torch: str, python: str, **more: object) -> dict[str, object]:
    """A cell that passed, unless told otherwise."""
    passed = {"ok": True, "error": None, "no wheel": None, "installed": True, "cuda": "13.0"}
    return {"torch": torch, "python": python, **passed, **more}


def test_results_of_another_wheel_are_dropped(tmp_path: Path) -> None:
    wheel, file = tmp_path / "a.whl", tmp_path / "x.json"
    wheel.write_bytes(b"one")

    def written(*cells: dict[str, object]) -> list[tuple[str, str]]:
        torch_matrix.write_results(file, wheel, list(cells))
        return [(c["torch"], c["python"]) for c in json.loads(file.read_text())["cells"]]

    assert written(cell("2.13.0", "3.10")) == [("2.13.0", "3.10")]
    assert written(cell("2.13.0", "3.11")) == [("2.13.0", "3.10"), ("2.13.0", "3.11")]
    assert written(cell("2.13.0", "3.10")) == [("2.13.0", "3.11"), ("2.13.0", "3.10")]
    # A torch that could not be installed says nothing about the wheel.
    assert len(written(cell("2.13.0", "3.12", installed=False, ok=False))) == 2
    wheel.write_bytes(b"two")
    assert written(cell("2.14.1", "3.10")) == [("2.14.1", "3.10")]


def test_table_shows_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {name: {"passed": 1} for name in torch_matrix.CHECKS}
    cells = [
        cell("2.14.1", "3.10", **everything),
        cell("2.14.1", "3.11", **{"recorded calls": {"passed": 1}}),
        cell("2.14.1", "3.12", ok=False),
        cell("2.14.1+cpu", "3.13", cuda=None, **everything),
        cell("2.15.0", "3.10", ok=False, cuda=None, **{"no wheel": "never published"}),
    ]
    recorded = {"wheel": "x.whl", "sha256": "0" * 64, "cells": cells}
    monkeypatch.setattr(render, "_read", lambda name: recorded)
    rows = dict(
        line.strip("| ").split(" | ", 1)
        for line in render.torch_matrix().splitlines()
        if line.startswith("| 2") or line.startswith("| nightly")
    )
    assert rows["2.14.1, CUDA 13"] == "**ok** | calls | FAILED | – | – | –"
    assert rows["2.14.1, CPU"] == "– | – | – | **ok** | – | –"
    assert rows["2.14.1, CUDA 12"] == rows["nightly, CPU"] == "– | – | – | – | – | –"
    assert rows["2.15.0, CPU"] == "no such torch | – | – | – | – | –"


def test_checks_are_the_same_in_tool_and_table() -> None:
    assert set(render.MATRIX_CHECKS) == set(torch_matrix.CHECKS)
