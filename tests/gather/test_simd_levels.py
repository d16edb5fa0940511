"""The dequantising gathers give the reference's bytes at every SIMD level."""

from __future__ import annotations

from pathlib import Path

import pytest

from subprocesses import run_python

TESTS = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_byte(level: str) -> None:
    code = "from gather.every_byte import main; main()"
    done = run_python(code, path=(TESTS,), KVOPS_SIMD=level)
    assert done.returncode == 0, done.stderr
    if done.stdout.strip() != level:
        pytest.skip(f"this machine has no {level}")
