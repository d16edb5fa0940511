"""Every kind of call runs on the current stream of its tensors' device, and waits for nothing.

The arguments get their values on the stream only after a long sleep, so that an operator that runs
on any other stream, or too early, works on zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from devices import CUDA, needs_two_gpus
from gpu.calls import is_on_device_only
from registry import OpCase, Sample
from support import (
    Call,
    assert_same_outcome,
    by_operator,
    copy_call,
    kinds,
    make_call,
    reference_outcome,
    sample_params,
)

SLEEP_CYCLES = 50_000_000  # 25 ms at 2 GHz: much longer than the host needs for a call

pytestmark = [
    pytest.mark.parametrize("device", CUDA),
    pytest.mark.parametrize(("case", "sample"), sample_params(kinds)),
]


def call_when_filled_late(call: Call) -> bool:
    """Call the operator on the current stream, behind the work that fills its arguments.

    Returns whether the call waited for that work.
    """
    late = [buffer for buffer in call.buffers if buffer.content.is_cuda]
    contents = [buffer.content.clone() for buffer in late]
    for buffer in late:
        buffer.content.zero_()
    device = late[0].content.device if late else torch.device("cuda", 0)
    torch.cuda.synchronize(device)
    stream = torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SLEEP_CYCLES)
        for buffer, content in zip(late, contents, strict=True):
            buffer.content.copy_(content)
    by_operator(call)
    filled_and_called = stream.record_event()
    waited = filled_and_called.query()
    stream.synchronize()
    return waited


@pytest.mark.parametrize("make_stream", [torch.cuda.default_stream, torch.cuda.Stream])
def test_current_stream(
    case: OpCase, sample: Sample, device: str, make_stream: Callable[[], torch.cuda.Stream]
) -> None:
    call = make_call(case, sample, device)
    expected = reference_outcome(call)
    by_operator(copy_call(call))  # loading a kernel may wait for the device
    stream = make_stream()
    with torch.cuda.stream(stream):
        waited = call_when_filled_late(call)
        assert torch.cuda.current_stream() == stream
    assert_same_outcome(call, expected)
    assert not waited or not is_on_device_only(call), "the call waited for earlier work"


@needs_two_gpus
def test_tensors_on_another_device(case: OpCase, sample: Sample, device: str) -> None:
    """Stream and device are those of the tensors, and the current device stays what it was."""
    call = make_call(case, sample, "cuda:1")
    expected = reference_outcome(call)
    with torch.cuda.stream(torch.cuda.Stream("cuda:1")), torch.cuda.device(0):
        call_when_filled_late(call)
        assert torch.cuda.current_device() == 0
    assert_same_outcome(call, expected)
