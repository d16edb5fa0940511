"""The scripts for compute-sanitizer run as they are, and hostile indices under memcheck."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devices import CUDA, DEVICES
from gpu_check import PARTS, SanitizerPart, sanitizer_command, sanitizer_summary
from subprocesses import KVOPS_PARENT

FOLDER = Path(__file__).resolve().parent
ENVIRON = os.environ | {"PYTHONPATH": KVOPS_PARENT, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, env=ENVIRON, cwd="/", timeout=540
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("script", ["every_kernel.py", "hostile_script.py"])
def test_script(script: str, device: str) -> None:
    done = run(sys.executable, str(FOLDER / script), "--device", device)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("name", ["hostile", "planted-memcheck"])
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="no compute-sanitizer here")
def test_memcheck(name: str, device: str) -> None:
    part = PARTS[name]
    assert isinstance(part, SanitizerPart)
    done = run(*sanitizer_command(part))
    errors, _ = sanitizer_summary(done.stdout + done.stderr)
    assert errors is not None and (errors > 0) == part.finds_errors, done.stdout + done.stderr
