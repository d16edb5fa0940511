"""Every kind of call runs on the current stream of its tensors' device, and waits for nothing.

`call_when_filled_late` tells: an operator that runs on any other stream works on zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from devices import CUDA, needs_two_gpus
from gpu.calls import call_when_filled_late, is_on_device_only
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

pytestmark = [
    pytest.mark.parametrize("device", CUDA),
    pytest.mark.parametrize(("case", "sample"), sample_params(kinds)),
]


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
    if case.addresses:
        pytest.skip("it sees no tensor there: its stream is that of the current device")
    call = make_call(case, sample, "cuda:1")
    expected = reference_outcome(call)
    with torch.cuda.stream(torch.cuda.Stream("cuda:1")), torch.cuda.device(0):
        call_when_filled_late(call)
        assert torch.cuda.current_device() == 0
    assert_same_outcome(call, expected)
