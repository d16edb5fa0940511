"""CUDA graphs: every kind of call can be captured, as the first call of a process too.

A replay reads what is in the tensors then: other values, other slots and pages, shorter sequences.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch

import kvops
from devices import CUDA
from gpu.calls import CAPTURE_MODES, capture, refill, rounds, uses_device
from gpu.random_calls import random_sample
from hostile import index_arguments
from registry import OpCase, Sample
from subprocesses import run_python
from support import (
    CASES,
    assert_same_outcome,
    assert_untouched,
    by_operator,
    by_reference,
    copy_call,
    guard,
    kinds,
    make_args,
    make_call,
    reference_outcome,
    sample_params,
)

TESTS = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.parametrize("device", CUDA)


@pytest.fixture(autouse=True)
def _no_garbage_during_capture() -> Iterator[None]:
    """Collecting a graph of an earlier test resets it, which would break a capture under way."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("mode", CAPTURE_MODES)
@pytest.mark.parametrize(("case", "sample"), sample_params(kinds))
def test_replays(case: OpCase, sample: Sample, device: str, mode: str) -> None:
    call = make_call(case, sample, device)
    if not uses_device(call):
        pytest.skip("copies from host to host are not part of a graph")
    before = call.content()
    graph = capture(call, mode)
    torch.cuda.synchronize()
    assert_untouched(call, before)
    for content in [make_call(case, sample, device), *rounds(case, sample, device)]:
        refill(call, content)
        expected = reference_outcome(call)
        graph.replay()
        torch.cuda.synchronize()
        assert_same_outcome(call, expected)


@pytest.mark.parametrize("mode", CAPTURE_MODES)
@pytest.mark.parametrize("seed", range(4))
def test_replays_of_copies_between_addresses(seed: int, device: str, mode: str) -> None:
    """The tables are read when the call is captured, the memory when it is replayed."""
    case = CASES["swap_blocks_batch"]
    sample = random_sample(case.name, Random(seed))
    call = guard(case, make_args(case, sample, device))
    twin = copy_call(call, "cpu")
    graph = capture(call, mode)
    for name in ("src_ptrs", "dst_ptrs", "sizes"):
        call.args[name].zero_()
    for _ in range(2):
        for name in ("_source", "_target"):
            content = torch.randint(256, call.args[name].shape, dtype=torch.uint8)
            call.args[name].copy_(content)
            twin.args[name].copy_(content)
        by_reference(twin)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(call.args["_target"].cpu(), twin.args["_target"])


@pytest.mark.parametrize("mode", CAPTURE_MODES)
@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_first_call_of_a_process(case: OpCase, device: str, mode: str) -> None:
    code = f"from gpu.first_calls import main; main({case.name!r}, {mode!r})"
    run = run_python(code, path=(TESTS,))
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("case", "sample"), sample_params(lambda case: kinds(case) if case.hostile else ())
)
def test_checked_mode_refuses(case: OpCase, sample: Sample, device: str) -> None:
    """It would have to wait for the index values; the capture itself goes on."""
    call, marker = make_call(case, sample, device), torch.zeros(1, device=device)
    if not any(call.args[name].is_cuda for name in index_arguments(call)):
        pytest.skip("the host holds its indices")
    before = call.content()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with kvops.checked(), pytest.raises(RuntimeError, match="capture") as error:
            by_operator(call)
        marker.add_(1)
    assert f"kvops::{case.name}: " in str(error.value)
    graph.replay()
    torch.cuda.synchronize()
    assert marker.item() == 1
    assert_untouched(call, before)


@pytest.mark.parametrize(
    ("case", "sample"), sample_params(lambda case: () if case.hostile else kinds(case))
)
def test_checked_mode_captures_what_has_no_index(case: OpCase, sample: Sample, device: str) -> None:
    call = make_call(case, sample, device)
    if not uses_device(call):
        pytest.skip("copies from host to host are not part of a graph")
    if call.args.get("is_src_access_order_any"):
        pytest.skip("refused in checked mode")
    expected = reference_outcome(call)
    with kvops.checked():
        graph = capture(call)
    graph.replay()
    torch.cuda.synchronize()
    assert_same_outcome(call, expected)


def test_many_calls_in_one_graph(device: str) -> None:
    """All operators after one another, each several times, replayed as a whole."""
    calls = [make_call(case, kinds(case)[0], device) for case in CASES.values() for _ in range(3)]
    calls = [call for call in calls if uses_device(call)]
    expected = [reference_outcome(call) for call in calls]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            by_operator(call)
    graph.replay()
    torch.cuda.synchronize()
    for call, outcome in zip(calls, expected, strict=True):
        assert_same_outcome(call, outcome)
