"""Calls recorded from vLLM 0.23 on an H200 must be reproduced by the reference and by kvops.

Cache, MLA and gather operators byte for byte on every device; attention within the rounding that
``tests/golden/README.md`` states. Tensors that are not mutated must keep their bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import kvops  # noqa: F401  (registers the operators)
from devices import DEVICES
from golden_calls import GoldenCall, load_calls
from kvops.reference import REFERENCE

CALLS = [pytest.param(call, id=call.id) for call in load_calls()]


def check(call: GoldenCall, operator: Callable[..., None], device: str) -> None:
    bound = call.bind(device)
    operator(*bound.args)
    assert bound.mismatches() == []


def test_every_recorded_call_is_here() -> None:
    assert len(CALLS) == 152
    # vLLM's operators; of copies between addresses there is nothing to record.
    unrecorded = {name for name in REFERENCE if name.startswith(("swap_blocks", "transfer_"))}
    assert {call.op for call in load_calls()} == set(REFERENCE) - unrecorded


@pytest.mark.parametrize("call", CALLS)
def test_reference(call: GoldenCall) -> None:
    check(call, REFERENCE[call.op], "cpu")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("call", CALLS)
def test_kvops(call: GoldenCall, device: str) -> None:
    check(call, getattr(torch.ops.kvops, call.op), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("call", CALLS)
def test_vllm_names(call: GoldenCall, device: str) -> None:
    check(call, getattr(getattr(torch.ops, call.namespace), call.op), device)
