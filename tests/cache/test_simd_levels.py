"""The cache operators give the reference's bytes at every SIMD level that this machine has."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from cache.exact_calls import digests
from kvops.reference import REFERENCE
from subprocesses import run_python

TESTS = Path(__file__).resolve().parent.parent
RUN = "import runpy; runpy.run_module('cache.exact_calls', run_name='__main__')"


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


@pytest.mark.parametrize("level", ["baseline", "avx2"])
def test_large_calls(level: str) -> None:
    """Streaming stores and whole squares at the levels that this process does not run at."""
    code = (
        "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider',"
        f" '{TESTS / 'cache' / 'test_writers.py'}', '-k', 'large_calls and (paged or 96)']))"
    )
    child = run_python(code, path=(TESTS,), KVOPS_SIMD=level)
    assert child.returncode == 0, child.stdout + child.stderr
