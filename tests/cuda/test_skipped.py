"""`kvops.skipped()`: whatever checked mode would have raised for is on record, and nothing else.

Checked mode on the CPU is the judge of what should be on record. The record names an entry that is
really there. Which of several bad ones comes first is a matter of threads, so where one bad value
makes others bad (lengths, starts), any of them will do.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import kvops
from devices import CUDA, needs_two_gpus
from gpu.calls import capture
from hostile import PLACES, bad_value, hostile_values, index_arguments, index_of, with_value
from registry import OpCase, Sample
from support import CASES, Call, by_operator, copy_call, kinds, make_call, refusal, sample_params

SLEEP_CYCLES = 2_000_000_000  # a second at 2 GHz

# A bad value here concerns the rows of its own entry only.
ALONE = {
    *("slot_mapping", "positions", "block_table", "block_tables", "token_to_seq", "seq_lens"),
    *("src_indices", "dst_indices"),
}

INDICES = [
    pytest.param(*param.values, name, id=f"{param.id}-{name}")
    for param in sample_params(kinds)
    for name in index_arguments(make_call(*param.values, "cpu"))
]
CASES_WITH_INDICES = [case for case in CASES.values() if case.hostile]
CASES_WITH_PADDING = [case for case in CASES.values() if case.padding]

pytestmark = pytest.mark.parametrize("device", CUDA)


@pytest.fixture(autouse=True)
def _nothing_on_record(device: str) -> Iterator[None]:
    for index in range(torch.cuda.device_count()):
        kvops.clear_skipped(index)
    yield
    torch.cuda.synchronize()


def is_refused_in_checked_mode(call: Call) -> bool:
    with kvops.checked():
        return refusal(copy_call(call, "cpu"), by_operator) is not None


def is_of_padding(call: Call, index: tuple[int, ...]) -> bool:
    """Whether the entry belongs to a padding token: nobody needs to look at it."""
    slots = [call.args[name] for name in call.case.padding]
    return any(index[0] < len(slot) and int(slot[index[0]]) == -1 for slot in slots)


def recorded() -> kvops.Skipped | None:
    torch.cuda.synchronize()
    return kvops.skipped()


def bad_call(case: OpCase, device: str) -> tuple[Call, str]:
    """A call with one bad entry that is read, and the name of the argument."""
    name = next(iter(case.hostile))
    for sample in kinds(case):
        valid = make_call(case, sample, device)
        value = bad_value(case, valid, name)
        call = with_value(valid, name, index_of(valid.args[name], "first"), value)
        if is_refused_in_checked_mode(call):
            return call, name
    raise AssertionError(f"no bad {name} is ever read")


def problem_of(call: Call, name: str, index: tuple[int, ...]) -> str | None:
    """What is wrong with the record after a call with a bad value at `name[index]`."""
    record = recorded()
    if not is_refused_in_checked_mode(call):
        return None if record is None else f"nothing is wrong, yet: {record}"
    if record is None:
        return None if is_of_padding(call, index) else "nothing on record"
    arguments = {name} if name in ALONE else set(call.case.hostile)
    if record.operator != call.case.name or record.argument not in arguments or record.count < 1:
        return str(record)
    values = call.args[record.argument].flatten().tolist()
    if not 0 <= record.index < len(values) or values[record.index] != record.value:
        return f"{record} is not in {values}"
    flat = torch.arange(len(values)).view(call.args[record.argument].shape)
    if record.argument == name and name in ALONE and record.index != int(flat[index]):
        return f"{record}, not index {int(flat[index])}"
    return None


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("case", "sample", "name"), INDICES)
def test_every_bad_value(case: OpCase, sample: Sample, name: str, place: str, device: str) -> None:
    valid = make_call(case, sample, device)
    index = index_of(valid.args[name], place)
    problems = {}
    for value in hostile_values(case, valid, name):
        call = with_value(valid, name, index, value)
        kvops.clear_skipped()
        by_operator(call)
        problem = problem_of(call, name, index)
        if problem is not None:
            problems[value] = problem
    assert problems == {}


@pytest.mark.parametrize(("case", "sample"), sample_params())
def test_nothing_for_valid_calls(case: OpCase, sample: Sample, device: str) -> None:
    by_operator(make_call(case, sample, device))
    assert recorded() is None


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.padding], ids=lambda c: c.name
)
def test_nothing_for_padding(case: OpCase, device: str) -> None:
    for sample in kinds(case):
        call = make_call(case, sample, device)
        for name in case.padding:
            call.args[name].fill_(-1)
        by_operator(call)
    assert recorded() is None


@pytest.mark.parametrize("case", CASES_WITH_INDICES, ids=lambda case: case.name)
def test_the_first_stays_and_all_are_counted(case: OpCase, device: str) -> None:
    call, _ = bad_call(case, device)
    by_operator(call)
    first = recorded()
    assert first is not None and first.operator == case.name
    other, _ = bad_call(next(other for other in CASES_WITH_INDICES if other is not case), device)
    by_operator(other)
    second = recorded()
    assert second is not None and second.count > first.count
    entry = (second.operator, second.argument, second.index, second.value)
    assert entry == (first.operator, first.argument, first.index, first.value)

    kvops.clear_skipped()
    assert recorded() is None
    by_operator(other)
    third = recorded()
    assert third is not None and third.operator == other.case.name


@pytest.mark.parametrize("case", CASES_WITH_INDICES, ids=lambda case: case.name)
def test_replays_of_a_graph(case: OpCase, device: str) -> None:
    call, name = bad_call(case, device)
    graph = capture(call)
    assert recorded() is None
    for _ in range(2):
        kvops.clear_skipped()
        graph.replay()
        record = recorded()
        assert record is not None and record.operator == case.name
    assert problem_of(call, name, index_of(call.args[name], "first")) is None


@pytest.mark.parametrize("make_stream", [torch.cuda.default_stream, torch.cuda.Stream])
def test_reading_and_clearing_wait_for_nothing(device: str, make_stream: type) -> None:
    call, _ = bad_call(CASES["reshape_and_cache_flash"], device)
    by_operator(call)
    assert recorded() is not None
    stream = make_stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SLEEP_CYCLES)
        asleep = stream.record_event()
    assert kvops.skipped() is not None
    kvops.clear_skipped()
    assert kvops.skipped() is None
    assert not asleep.query(), "reading or clearing waited for other work"
    stream.synchronize()


def test_reading_during_capture(device: str) -> None:
    call, _ = bad_call(CASES["reshape_and_cache_flash"], device)
    by_operator(call)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert kvops.skipped() is not None
        kvops.clear_skipped()
        by_operator(call)
    assert recorded() is None
    graph.replay()
    assert recorded() is not None


@needs_two_gpus
def test_every_device_has_its_own(device: str) -> None:
    call, _ = bad_call(CASES["reshape_and_cache_flash"], "cuda:1")
    by_operator(call)
    torch.cuda.synchronize(1)
    assert kvops.skipped(0) is None
    record = kvops.skipped(torch.device("cuda:1"))
    assert record is not None and record.operator == "reshape_and_cache_flash"
    kvops.clear_skipped(0)
    assert kvops.skipped(1) == record
    kvops.clear_skipped(1)
    assert kvops.skipped(1) is None
