"""Settings of every test run: hypothesis profiles, torch's threads, seeds."""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterator

# Read when torch loads OpenMP. Workers of pytest-xdist share the cores: a thread that has nothing
# to do must not spin on one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Where there is no network, no test waits for one: what needs it is skipped. (In CI there is one.)
if not os.environ.get("CI"):
    os.environ |= {"PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "5"}
    os.environ |= {"RES_OPTIONS": "timeout:2 attempts:1"}  # how long names are looked up

# Of tests whose inputs are new in every run, but in CI. Workers of pytest-xdist inherit it.
os.environ.setdefault("KVOPS_SEED", "0" if os.environ.get("CI") else str(secrets.randbelow(2**32)))

import hypothesis
import pytest
import torch

import kvops
from devices import wait_for_gpu
from golden_calls import GoldenCall
from registry import OpCase

_PROFILE = "ci" if os.environ.get("CI") else "default"

# Deadlines measure the machine. In CI a run must repeat on the next commit, and a failure must say
# how to get it again elsewhere: `print_blob` does.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile(_PROFILE)

# More than one, so that the parallel paths of the CPU kernels run.
torch.set_num_threads(2)


def pytest_report_header(config: pytest.Config) -> str:
    seed = os.environ["KVOPS_SEED"]
    return f"torch {torch.__version__}, hypothesis profile {_PROFILE}, KVOPS_SEED={seed}"


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> None:
    """The same random numbers in every run of a test, whichever tests ran before it."""
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def _nothing_under_way() -> Iterator[None]:
    """Pinned memory that a test gives back is soon another's: no copy may still be using it."""
    yield
    wait_for_gpu()


def _operator_under_test(request: pytest.FixtureRequest) -> str | None:
    """The operator that a test is about: of its case, its recorded call, or its file's name."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    for value in parameters.values():
        if isinstance(value, OpCase):
            return value.name
        if isinstance(value, GoldenCall):
            return value.op
    return request.path.stem.removeprefix("test_")


@pytest.fixture(autouse=True)
def _cuda_kernel_exists(request: pytest.FixtureRequest) -> None:
    """On a GPU, pass over operators that this build has no CUDA kernel for, and say so."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    if parameters.get("device") != "cuda" or os.environ.get("KVOPS_REQUIRE_CUDA") == "1":
        return
    name = _operator_under_test(request)
    operators = kvops.info()["operators"]
    if name in operators["CPU"] and name not in operators["CUDA"]:
        pytest.skip(f"this build has no CUDA kernel of {name}")
