"""CPU and CUDA operators agree on random calls, new ones in every run.

`KVOPS_SEED` in the environment repeats a run; pytest prints it at the top, and failures name it.
Where there is no GPU, fewer of the same calls compare the CPU operators with the reference.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

import pytest
import torch

from devices import CUDA
from gpu.random_calls import random_sample, spoil
from registry import OpCase
from support import (
    CASES,
    Call,
    assert_same_outcome,
    by_operator,
    by_reference,
    copy_call,
    copy_call_to_devices_of,
    guard,
    make_args,
)

SEED = int(os.environ["KVOPS_SEED"])  # tests/conftest.py sets it
BATCHES, CALLS = 3, 50  # of each operator
CPU_CALLS = 8


def random_call(case: OpCase, number: str, device: str) -> Call:
    """Call `number` of a run, the same on every device."""
    random = Random(f"{SEED}-{case.name}-{number}")
    sample = random_sample(case.name, random)
    misaligned, spoiled = random.random() < 0.25, random.random() < 0.4
    seed = random.getrandbits(30)
    call = guard(case, make_args(case, sample, "cpu", seed), misaligned=misaligned)
    if spoiled:
        spoil(call, random)
    if device == "cpu":
        return call
    # Copied with its storages, so that both devices have the same bytes around the arguments.
    return copy_call_to_devices_of(call, make_args(case, sample, device, seed))


def assert_agreement(
    case: OpCase, device: str, numbers: list[str], expect: Callable[[Call], None]
) -> None:
    problems = {}
    for number in numbers:
        expected, actual = (random_call(case, number, where) for where in ("cpu", device))
        shapes = {
            name: (list(value.shape), value.dtype) if isinstance(value, torch.Tensor) else value
            for name, value in actual.args.items()
        }
        try:
            expect(expected)
            by_operator(actual)
            if device == "cuda":
                torch.cuda.synchronize()
            assert_same_outcome(actual, expected)
        except (AssertionError, RuntimeError) as error:
            problems[number] = f"{error} in {shapes}"
    assert problems == {}, f"KVOPS_SEED={SEED}: {problems}"


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_cpu_and_cuda(case: OpCase, batch: int, device: str) -> None:
    numbers = [f"{batch}.{index}" for index in range(CALLS)]
    assert_agreement(case, device, numbers, by_operator)


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_cpu_and_reference(case: OpCase) -> None:
    assert_agreement(case, "cpu", [f"0.{index}" for index in range(CPU_CALLS)], by_reference)


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_a_number_is_always_the_same_call(case: OpCase) -> None:
    for index in range(3):
        first, second = (random_call(case, f"0.{index}", "cpu") for _ in range(2))
        for left, right in zip(first.buffers, second.buffers, strict=True):
            assert left.is_address_table or torch.equal(left.content, right.content)
        assert copy_call(first).keywords().keys() == second.keywords().keys()
