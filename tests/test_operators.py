"""Every sample of every operator gives what the reference says, and nothing else changes.

Outputs are compared by the case's rule (bytes, or a stated rounding); every other byte, guard bytes
between and around rows included, must be as the reference leaves it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from devices import DEVICES
from registry import OpCase, Sample
from support import (
    SURFACES,
    Call,
    assert_same_outcome,
    by_operator,
    by_reference,
    invert_outputs,
    make_call,
    reference_outcome,
    sample_params,
)

pytestmark = pytest.mark.parametrize(("case", "sample"), sample_params())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("call_it", SURFACES)
def test_result(case: OpCase, sample: Sample, device: str, call_it: Callable[[Call], None]) -> None:
    call = make_call(case, sample, device)
    expected = reference_outcome(call)
    call_it(call)
    assert_same_outcome(call, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_storages_at_odd_addresses(case: OpCase, sample: Sample, device: str) -> None:
    call = make_call(case, sample, device, misaligned=True)
    expected = reference_outcome(call)
    by_operator(call)
    assert_same_outcome(call, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_outputs_with_other_poison(case: OpCase, sample: Sample, device: str) -> None:
    call = make_call(case, sample, device)
    invert_outputs(call)
    expected = reference_outcome(call)
    by_operator(call)
    assert_same_outcome(call, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_keyword_arguments(case: OpCase, sample: Sample, device: str) -> None:
    call = make_call(case, sample, device)
    expected = reference_outcome(call)
    getattr(torch.ops.kvops, case.name)(**call.keywords())
    assert_same_outcome(call, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("call_it", [by_operator, by_reference])
def test_inputs_keep_their_bytes(
    case: OpCase, sample: Sample, device: str, call_it: Callable[[Call], None]
) -> None:
    call = make_call(case, sample, "cpu" if call_it is by_reference else device)
    before = call.content()
    call_it(call)
    for buffer, content in zip(call.buffers, before, strict=True):
        assert buffer.holds_output() or torch.equal(buffer.bytes(), content), buffer.arguments
