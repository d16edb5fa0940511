"""A driver that is too old, a driver that is none, and a second CUDA runtime in the process."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import pytest

import kvops
from devices import CUDA
from gpu.old_driver import driver_check, stand_in
from subprocesses import run_python

TESTS = Path(__file__).resolve().parent.parent


def problem_with(library: Path, libcuda: Path) -> str:
    """What the check says in a process of its own, where `libcuda` is the driver."""
    code = (
        "import ctypes; check = ctypes.CDLL({!r}); check.problem.restype = ctypes.c_char_p;"
        "print(check.problem().decode())"
    )
    run = run_python(code.format(str(library)), KVOPS_LIBCUDA=str(libcuda))
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("runtime", "driver", "words"),
    [
        (13000, 12040, ("supports CUDA 12.4", "built with CUDA 13.0", "CUDA 13.0 or later (R580)")),
        (13020, 12090, ("supports CUDA 12.9", "built with CUDA 13.2", "CUDA 13.0 or later (R580)")),
        (12080, 11080, ("supports CUDA 11.8", "built with CUDA 12.8", "CUDA 12.0 or later (R525)")),
        (13020, 13000, ()),  # any driver of the same major version serves
        (13000, 13020, ()),
        (12080, 12000, ()),
        (12080, 13000, ()),
    ],
)
def test_what_is_said_of_a_driver(
    tmp_path: Path, runtime: int, driver: int, words: tuple[str, ...]
) -> None:
    said = problem_with(driver_check(tmp_path, runtime), stand_in(tmp_path, driver))
    assert bool(said) == bool(words)
    assert all(part in said for part in words), said
    assert "\n" not in said


def test_what_is_said_where_no_driver_answers(tmp_path: Path) -> None:
    library = driver_check(tmp_path, 13000)
    broken = [
        tmp_path / "no-such-file.so",
        stand_in(tmp_path, 13000, symbol=False),
        stand_in(tmp_path, 13000, error=3),
    ]
    for libcuda in broken:
        assert "no CUDA driver answers" in problem_with(library, libcuda)


def test_the_version_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVOPS_LIBCUDA", str(stand_in(tmp_path, 12040)))
    check = ctypes.CDLL(str(driver_check(tmp_path, 12080)))
    assert check.version() == 12040
    monkeypatch.setenv("KVOPS_LIBCUDA", str(stand_in(tmp_path, 11080)))
    assert check.version() == 12040


USE = """
import torch, kvops
ones = torch.ones(3, 40)
stored = torch.zeros(3, 40, dtype=torch.uint8)
kvops.convert_fp8(stored, ones, 1.0, "fp8")
assert (stored == 0x38).all()
print("info:", kvops.info()["cuda driver"])
if torch.cuda.is_available():
    for _ in range(2):
        try:
            kvops.convert_fp8(stored.cuda(), ones.cuda(), 1.0, "fp8")
        except RuntimeError as error:
            print("raised:", error)
    print("sum:", ones.cuda().sum().item())
"""


@pytest.fixture
def older_major(tmp_path: Path) -> tuple[Path, str, str]:
    """A stand-in that is too old for the kernels that are installed; its version, and theirs."""
    found = re.match(r"loaded, built with CUDA (\d+)\.(\d+)", kvops.info()["_C_cuda"])
    if found is None:
        pytest.skip("_C_cuda is not loaded here: this torch is built without CUDA")
    major = int(found[1])
    library = stand_in(tmp_path, (major - 1) * 1000 + 40)
    return library, f"{major - 1}.4", f"{found[1]}.{found[2]}"


def use_with(library: Path) -> list[str]:
    run = run_python(USE, KVOPS_LIBCUDA=str(library))
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_cpu_operators_and_info_with_an_old_driver(older_major: tuple[Path, str, str]) -> None:
    library, driver, runtime = older_major
    said = next(line for line in use_with(library) if line.startswith("info: "))
    assert f"supports CUDA {driver}" in said and f"built with CUDA {runtime}" in said


@pytest.mark.parametrize("device", CUDA)
def test_cuda_operators_with_an_old_driver(device: str, older_major: tuple[Path, str, str]) -> None:
    """They say so at every call; torch itself, whose driver is the real one, goes on."""
    library, driver, runtime = older_major
    lines = use_with(library)
    raised = [line for line in lines if line.startswith("raised: kvops::convert_fp8: ")]
    assert len(raised) == 2 and raised[0] == raised[1]
    assert f"supports CUDA {driver}" in raised[0] and f"built with CUDA {runtime}" in raised[0]
    assert "sum: 120.0" in lines


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("when", ["before", "after"])
def test_another_runtime_in_the_process(when: str, device: str) -> None:
    """With libcudart.so.12 beside torch's, say: every kind on a stream and in a capture."""
    other = os.environ.get("KVOPS_OTHER_CUDART")
    if other is None:
        pytest.skip("KVOPS_OTHER_CUDART does not name a libcudart of another CUDA")
    code = f"from gpu.other_runtime import main; main({other!r}, {when!r})"
    run = run_python(code, path=(TESTS,))
    assert run.returncode == 0, run.stdout + run.stderr
