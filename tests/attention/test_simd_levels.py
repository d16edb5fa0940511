"""Attention at every SIMD level of the CPU kernels, each in a process of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from subprocesses import run_python

TESTS = Path(__file__).resolve().parent.parent


@cache
def run_at(level: str) -> tuple[str, str]:
    """The level that was really used, and the digest of merge_attn_states."""
    code = "import runpy; runpy.run_module('attention.every_simd_level', run_name='__main__')"
    finished = run_python(code, path=(TESTS,), KVOPS_SIMD=level)
    assert finished.returncode == 0, finished.stderr
    used, digest = finished.stdout.split()[-2:]
    return used, digest


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_level(level: str) -> None:
    used, digest = run_at(level)
    if used != level:
        pytest.skip(f"this processor has no {level}")
    assert digest == run_at("baseline")[1]
