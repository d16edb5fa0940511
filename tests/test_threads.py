"""Several Python threads call every operator at once, each on tensors of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import kvops
from bad_slot import MESSAGE, write_out_of_range
from devices import DEVICES
from registry import OpCase, Sample
from support import (
    assert_same_outcome,
    by_operator,
    copy_call,
    kinds,
    make_call,
    reference_outcome,
    sample_params,
)

THREADS = 4
CALLS = 25


def at_once(work: Callable[[int], None]) -> None:
    """Run `work(0)` .. `work(THREADS - 1)`, each in a thread, none before all are ready."""
    ready = threading.Barrier(THREADS)

    def start(thread: int) -> None:
        ready.wait()
        work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        for result in [pool.submit(start, thread) for thread in range(THREADS)]:
            result.result()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("case", "sample"), sample_params(kinds))
def test_results(case: OpCase, sample: Sample, device: str) -> None:
    original = make_call(case, sample, device)
    expected = reference_outcome(original)
    calls = [[copy_call(original) for _ in range(CALLS)] for _ in range(THREADS)]

    def work(thread: int) -> None:
        for call in calls[thread]:
            by_operator(call)

    at_once(work)
    for thread in calls:
        for call in thread:
            assert_same_outcome(call, expected)


def test_checked_mode_is_per_thread() -> None:
    step = threading.Barrier(THREADS, timeout=60)  # if one fails, the others must not wait

    def work(thread: int) -> None:
        step.wait()
        if thread % 2 == 0:
            with kvops.checked():
                step.wait()
                with pytest.raises(RuntimeError, match=MESSAGE):
                    write_out_of_range()
                step.wait()
        else:
            step.wait()  # the others are in checked mode now
            write_out_of_range()
            step.wait()

    at_once(work)
