"""Settings of every test run: hypothesis profiles, torch's threads, seeds."""

from __future__ import annotations

import os
import zlib

# Read when torch loads OpenMP. Workers of pytest-xdist share the cores: a thread that has nothing
# to do must not spin on one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch

_PROFILE = "ci" if os.environ.get("CI") else "default"

# Deadlines measure the machine. In CI a run must repeat on the next commit, and a failure must say
# how to get it again elsewhere: `print_blob` does.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile(_PROFILE)

# More than one, so that the parallel paths of the CPU kernels run.
torch.set_num_threads(2)


def pytest_report_header(config: pytest.Config) -> str:
    return f"torch {torch.__version__}, hypothesis profile {_PROFILE}"


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> None:
    """The same random numbers in every run of a test, whichever tests ran before it."""
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))
