"""Values of index tensors are never trusted.

By default a value that is out of range is skipped, as the reference defines. In checked mode the
same call raises before a byte is written and names the argument, the place and the value.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

import kvops
from devices import DEVICES
from hostile import PLACES, hostile_values, index_arguments, index_of, with_value
from registry import UNBOUNDED, OpCase, Sample
from support import (
    Call,
    assert_same_outcome,
    by_operator,
    kinds,
    make_call,
    reference_outcome,
    refusal,
    sample_params,
)
from tensor_bytes import byte_view

pytestmark = [
    pytest.mark.parametrize("place", PLACES),
    pytest.mark.parametrize(
        ("case", "sample", "name"),
        [
            pytest.param(*param.values, name, id=f"{param.id}-{name}")
            for param in sample_params(kinds)
            for name in index_arguments(make_call(*param.values, "cpu"))
        ],
    ),
]


def matters(call: Call, name: str, index: tuple[int, ...], value: int) -> bool:
    """Whether an entry can change the result: those past the end of a sequence cannot."""
    limit = call.case.hostile[name](call.args)
    others = {value, 0} if limit == UNBOUNDED else {value, 0, limit // 2, limit - 1}
    outcomes = [
        reference_outcome(with_value(call, name, index, other)).outputs() for other in others
    ]
    return any(
        not torch.equal(byte_view(outcome[output]), byte_view(tensor))
        for output, tensor in outcomes[0].items()
        for outcome in outcomes[1:]
    )


def names_entry(message: str, tensor: Tensor, name: str, index: tuple[int, ...]) -> bool:
    """Whether a message names `name[i, j]`, or `name[flat index]`, and the value there."""
    flat = torch.arange(tensor.numel()).view(tensor.shape)[index]
    place = rf"{name}\[(?:{flat}|{', '.join(map(str, index))})\]"
    return re.search(rf"{place} .*\bgot {int(tensor[index])}$", message) is not None


@pytest.mark.parametrize("device", DEVICES)
def test_skipped_by_default(
    case: OpCase, sample: Sample, name: str, place: str, device: str
) -> None:
    valid = make_call(case, sample, device)
    index = index_of(valid.args[name], place)
    problems = {}
    for value in hostile_values(case, valid, name):
        call = with_value(valid, name, index, value)
        expected = reference_outcome(call)
        try:
            by_operator(call)
            assert_same_outcome(call, expected)
        except (AssertionError, RuntimeError) as error:
            problems[value] = str(error)
    assert problems == {}


@pytest.mark.parametrize("device", DEVICES)
def test_raises_in_checked_mode(
    case: OpCase, sample: Sample, name: str, place: str, device: str
) -> None:
    valid = make_call(case, sample, device)
    index = index_of(valid.args[name], place)
    problems = {}
    for value in hostile_values(case, valid, name):
        try:
            check_in_checked_mode(with_value(valid, name, index, value), name, index)
        except AssertionError as error:
            problems[value] = str(error)
    assert problems == {}


def check_in_checked_mode(call: Call, name: str, index: tuple[int, ...]) -> None:
    tensor = call.args[name]
    value = int(tensor[index])
    is_padding = value == -1 and name in call.case.padding
    expected = reference_outcome(call)
    with kvops.checked():
        message = refusal(call, by_operator)
    if message is None:
        assert_same_outcome(call, expected)
        assert is_padding or not matters(call, name, index, value), "not noticed"
    else:
        assert not is_padding, message
        assert names_entry(message, tensor, name, index), message
        # Documented: entries past the end of a sequence may have any value.
        is_table = name.startswith("block_table")
        assert not is_table or matters(call, name, index, value), f"not read, yet: {message}"
