"""Devices that tests run on: parametrise with ``DEVICES``, or with ``CUDA`` for GPUs alone.

CUDA cases are skipped where there is no CUDA device, but with ``KVOPS_REQUIRE_CUDA=1`` they run and
fail there: a GPU test machine that lost its GPU must not be green.
"""

from __future__ import annotations

import os

import pytest
import torch

_CUDA_REQUIRED = os.environ.get("KVOPS_REQUIRE_CUDA") == "1"

CUDA = [
    pytest.param(
        "cuda",
        id="cuda",
        marks=pytest.mark.skipif(
            not _CUDA_REQUIRED and not torch.cuda.is_available(),
            reason="this machine has no CUDA device",
        ),
    ),
]
DEVICES = [pytest.param("cpu", id="cpu"), *CUDA]

# Most GPU machines have one: not having two is never a failure.
needs_two_gpus = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="this machine has fewer than two CUDA devices"
)


def wait_for_gpu() -> None:
    """Before host memory is read, or given back: a GPU may still be writing to it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
