"""Calls leave no memory behind, not even those with a `str` argument, or those that are refused.

The stable ABI's headers before torch 2.14.1 leak each `str` argument, about 100 bytes: 2 MB here.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import OpCase
from support import CASES, Call, by_operator, kinds, make_call

CALLS = 20_000
WARM_UP_CALLS = 2_000
ALLOWED_BYTES = 256 * 1024


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth_bytes(work: Callable[[], None]) -> int:
    """By how much the process grows over many calls. Not what the first ones allocate to stay."""
    for _ in range(WARM_UP_CALLS):
        work()
    gc.collect()
    before = resident_bytes()
    for _ in range(CALLS):
        work()
    gc.collect()
    return resident_bytes() - before


def small_call(case: OpCase) -> Call:
    calls = (make_call(case, sample, "cpu") for sample in kinds(case))
    return min(calls, key=lambda call: sum(buffer.content.numel() for buffer in call.buffers))


def string_arguments(case: OpCase) -> list[str]:
    return [name for name, value in small_call(case).args.items() if isinstance(value, str)]


@pytest.mark.parametrize("name", CASES)
def test_calls(name: str) -> None:
    call = small_call(CASES[name])
    assert growth_bytes(lambda: by_operator(call)) < ALLOWED_BYTES


@pytest.mark.parametrize("name", [name for name in CASES if string_arguments(CASES[name])])
def test_refused_calls(name: str) -> None:
    call = small_call(CASES[name])
    for argument in string_arguments(CASES[name]):
        call.args[argument] = "a string too long to be kept within an object" * 4

    def refused() -> None:
        with contextlib.suppress(RuntimeError):
            by_operator(call)

    assert growth_bytes(refused) < ALLOWED_BYTES
