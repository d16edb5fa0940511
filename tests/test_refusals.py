"""Every refusal that a case lists: the right message, and every byte as it was."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from devices import DEVICES
from registry import OpCase, Refusal
from support import CASES, SURFACES, Call, assert_untouched, guard, make_args


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("call_it", SURFACES)
@pytest.mark.parametrize(
    ("case", "wrong"),
    [
        pytest.param(case, wrong, id=f"{case.name}-{wrong.id}")
        for case in CASES.values()
        for wrong in case.refusals
    ],
)
def test_refusal(
    case: OpCase, wrong: Refusal, device: str, call_it: Callable[[Call], None]
) -> None:
    args = make_args(case, case.sample(wrong.sample), device)
    wrong.change(args)
    call = guard(case, args)
    before = call.content()
    expected = f"{re.escape(f'kvops::{case.name}: ')}(?:{wrong.match})"
    with pytest.raises(RuntimeError, match=expected):
        call_it(call)
    assert_untouched(call, before)
