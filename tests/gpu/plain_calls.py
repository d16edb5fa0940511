"""Calls in memory of their own, without guard bytes: one byte too far is outside of the allocation.

For scripts that run under compute-sanitizer with PYTORCH_NO_CUDA_MEMORY_CACHING=1.
"""

from __future__ import annotations

import argparse

import torch

from registry import OpCase, Sample
from support import Call, make_args


def plain_call(case: OpCase, sample: Sample, device: str) -> Call:
    return Call(case, make_args(case, sample, device), ())


def device_of_script(description: str) -> str:
    """`--device` of a script; without one, CUDA."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; try --device cpu")
    return device


def wait(device: str) -> None:
    """Let errors of earlier calls surface here."""
    if device != "cpu":
        torch.cuda.synchronize()
