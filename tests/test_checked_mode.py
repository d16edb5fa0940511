"""Checked mode: valid calls pass in it, and it is on exactly where it was asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kvops
from bad_slot import MESSAGE, write_out_of_range
from devices import DEVICES
from registry import OpCase, Sample
from subprocesses import run_python
from support import assert_same_outcome, by_operator, make_call, reference_outcome, sample_params


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("case", "sample"), sample_params())
def test_valid_calls_pass(case: OpCase, sample: Sample, device: str) -> None:
    call = make_call(case, sample, device)
    expected = reference_outcome(call)
    with kvops.checked():
        by_operator(call)
    assert_same_outcome(call, expected)


def test_ends_with_its_context() -> None:
    with kvops.checked(), pytest.raises(RuntimeError, match=MESSAGE):
        write_out_of_range()
    write_out_of_range()


def test_ends_after_an_exception() -> None:
    with pytest.raises(RuntimeError, match=MESSAGE), kvops.checked():
        write_out_of_range()
    write_out_of_range()


def test_nests() -> None:
    with kvops.checked():
        with kvops.checked():
            pass
        with pytest.raises(RuntimeError, match=MESSAGE):
            write_out_of_range()


@pytest.mark.parametrize(
    ("value", "is_on"), [("1", True), ("0", False), ("", False), (None, False)]
)
def test_environment(value: str | None, is_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KVOPS_CHECKED", raising=False)
    code = (
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from bad_slot import write_out_of_range\n"
        "Pool().submit(write_out_of_range).result()"
    )
    environment = {} if value is None else {"KVOPS_CHECKED": value}
    run = run_python(code, path=(Path(__file__).parent,), **environment)
    assert run.returncode == (1 if is_on else 0), run.stderr
    assert re.search(MESSAGE, run.stderr) is not None or not is_on
