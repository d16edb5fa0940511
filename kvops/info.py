"""What is installed here and what works: `python -m kvops info`."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import torch

from . import _peer_names
from ._native import OPERATORS, libraries, torch_kind
from .swap import last_path
from .swap._paths import wishes


def version() -> str:
    """The version that the native library was built as."""
    return libraries.cpu.kvops_version().decode()


def info() -> dict[str, Any]:
    """Facts about this installation, for bug reports; initialises no GPU.

    Returns:
        A dict with the versions of kvops, torch and Python, what each native library was built
        with and whether it is loaded (if not, why), the SIMD level in use, what swaps are asked to
        do and the path that the last one took, the operators by device, vLLM's and SGLang's names
        that kvops holds, and the CUDA driver found.
    """
    cuda = libraries.cuda
    return {
        "kvops": version(),
        "torch": torch.__version__,
        "torch built for": " ".join(filter(None, [torch_kind(), torch.version.cuda])),
        "python": platform.python_version(),
        "_C": f"loaded, built with {libraries.cpu.kvops_build().decode()}",
        "_C_cuda": f"loaded, built with {_cuda_build(cuda.kvops_cuda_build().decode())}"
        if cuda
        else f"not loaded: {libraries.cuda_reason}",
        "cuda driver": _driver(),
        "simd": libraries.cpu.kvops_simd().decode(),
        "checked mode": bool(libraries.cpu.kvops_checked()),
        "swap path": wishes(),
        "last swap path": last_path() or "none yet",
        "operators": {device: _operators_on(device) for device in ("CPU", "CUDA")},
        **{f"{peer.title} names held": peer.claimed() for peer in _peer_names.PEERS},
        **{f"{peer.title} names left to": peer.installed_owner() for peer in _peer_names.PEERS},
    }


def _cuda_build(build: str) -> str:
    """What the CUDA library was built with, and whether that makes it a build for development."""
    major = int(build.removeprefix("CUDA ").split(".")[0])
    # A static runtime of 13.x refuses every driver before R580: releases are built with 12.8 or
    # 12.9, whose runtime those drivers accept as well.
    return f"{build} (for development: needs driver R580 or later)" if major >= 13 else build


def _operators_on(device: str) -> list[str]:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return [op.name for op in OPERATORS if has_kernel(f"kvops::{op.name}", device)]


def _driver() -> str:
    """The newest CUDA version the driver supports, and whether that is enough for our kernels.

    Asks the driver without initialising it.
    """
    if libraries.cuda is not None:
        problem = libraries.cuda.kvops_cuda_driver_problem().decode()
        if problem:
            return problem
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "none (no libcuda.so.1)"
    number = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(number)):
        return "found, but it does not answer"
    return f"supports CUDA {number.value // 1000}.{number.value % 1000 // 10}"
