"""The MLA writers give the bytes of the reference at every SIMD level that this machine has."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from kvops.reference import REFERENCE
from mla.exact_calls import digests
from subprocesses import run_python

TESTS = Path(__file__).resolve().parent.parent
RUN = "import runpy; runpy.run_module('mla.exact_calls', run_name='__main__')"


@cache
def expected() -> dict[str, str]:
    return digests(REFERENCE)


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_bytes_of_the_reference(level: str) -> None:
    child = run_python(RUN, path=(TESTS,), KVOPS_SIMD=level)
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout)
    if result["simd"] != level:
        pytest.skip(f"this machine has no {level}")
    assert result["digests"] == expected()
