"""Run in a fresh process: every kind of call with a second CUDA runtime loaded beside torch's.

    python -c 'from gpu.other_runtime import main; main("/path/libcudart.so.12", "before")'

torch is imported in the functions: the other runtime may have to be there first.
"""

from __future__ import annotations

import ctypes
from pathlib import Path


def main(library: str, when: str) -> None:
    """Load the library `when` ("before" or "after") torch and kvops are, and use it."""
    if when == "before":
        _load(library)
    import torch

    import kvops  # noqa: F401

    torch.zeros(1, device="cuda")
    if when == "after":
        _load(library)
    _check_every_kind()


def _load(library: str) -> None:
    runtime = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    version, count = ctypes.c_int(), ctypes.c_int()
    assert runtime.cudaRuntimeGetVersion(ctypes.byref(version)) == 0
    assert runtime.cudaGetDeviceCount(ctypes.byref(count)) == 0 and count.value > 0
    assert runtime.cudaFree(None) == 0  # initialises it
    assert Path(library).resolve().name in Path("/proc/self/maps").read_text()
    print(f"the other runtime is of CUDA {version.value}")


def _check_every_kind() -> None:
    import torch

    from gpu.calls import call_when_filled_late, capture, uses_device
    from support import (
        CASES,
        assert_same_outcome,
        copy_call,
        kinds,
        make_call,
        reference_outcome,
    )

    stream = torch.cuda.Stream()
    for case in CASES.values():
        for sample in kinds(case):
            call = make_call(case, sample, "cuda")
            captured, expected = copy_call(call), reference_outcome(call)
            with torch.cuda.stream(stream):
                call_when_filled_late(call)
            assert_same_outcome(call, expected)
            if uses_device(captured):
                capture(captured).replay()
                torch.cuda.synchronize()
                assert_same_outcome(captured, expected)
        print(f"{case.name}: ok")
