"""The helpers of the tests in this folder do what these rely on; checked on the CPU."""

from __future__ import annotations

import pytest
import torch

import kvops
from gpu.calls import refill, rounds
from hostile import bad_value, index_of, with_value
from registry import OpCase, Sample
from support import (
    CASES,
    assert_same_outcome,
    by_operator,
    kinds,
    make_call,
    reference_outcome,
    refusal,
    sample_params,
)


@pytest.mark.parametrize(("case", "sample"), sample_params(kinds))
def test_a_call_can_be_made_again_with_other_content(case: OpCase, sample: Sample) -> None:
    call = make_call(case, sample, "cpu")
    first = call.content()
    for content in rounds(case, sample, "cpu"):
        refill(call, content)
        changed = [
            not torch.equal(buffer.bytes(), before)
            for buffer, before in zip(call.buffers, first, strict=True)
        ]
        assert any(changed)
        expected = reference_outcome(call)
        by_operator(call)
        assert_same_outcome(call, expected)


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.hostile], ids=lambda case: case.name
)
def test_every_index_argument_is_read_somewhere(case: OpCase) -> None:
    """Else the tests of the skip record would ask for nothing."""
    for name in case.hostile:
        refused = []
        for sample in kinds(case):
            valid = make_call(case, sample, "cpu")
            if valid.args.get(name) is None:
                continue
            value = bad_value(case, valid, name)
            call = with_value(valid, name, index_of(valid.args[name], "first"), value)
            with kvops.checked():
                refused.append(refusal(call, by_operator) is not None)
        assert any(refused), name
