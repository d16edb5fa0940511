"""torch.library.opcheck, all its tests, under both names of every operator.

It shows that schemas are true (nothing else is written), that autograd and fakes are registered,
and that tracing with symbolic sizes gives the same results.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from devices import DEVICES
from registry import OpCase, Sample
from support import CASES, PEER_NAMESPACES, kinds, make_call, sample_params
from tensor_bytes import byte_view

ALL_TESTS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)

# vLLM's letter for merge_attn_states has `int!?`, an int that is written to: functionalisation can
# have no version of it, on any torch. `kvops::merge_attn_states` says `int?`.
# SGLang's letters mark nothing as written, which is not true; compilers do not get to see them.
EXCUSED = {
    "_C::merge_attn_states": ("test_aot_dispatch_dynamic",),
    **{
        f"sgl_kernel::{name}": ("test_schema", "test_aot_dispatch_dynamic")
        for name in CASES
        if PEER_NAMESPACES[name] == "sgl_kernel" and name != "transfer_embedding_ranges_direct"
    },
}


@pytest.fixture(autouse=True)
def _compare_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let opcheck see every bit: it compares with allclose, which knows no float8."""

    def same_bytes(left: Tensor, right: Tensor, **tolerances: Any) -> bool:
        return torch.equal(byte_view(left), byte_view(right))

    monkeypatch.setattr(torch, "allclose", same_bytes)


def check(namespace: str, case: OpCase, sample: Sample, device: str) -> None:
    operator: Any = getattr(getattr(torch.ops, namespace), case.name).default
    excused = EXCUSED.get(f"{namespace}::{case.name}", ())
    tests = tuple(test for test in ALL_TESTS if test not in excused)
    call = make_call(case, sample, device)  # also holds the memory that addresses point to
    arguments = tuple(call.positional())
    results = torch.library.opcheck(operator, arguments, test_utils=tests)
    assert results == dict.fromkeys(tests, "SUCCESS")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("case", "sample"), sample_params(kinds))
def test_kvops(case: OpCase, sample: Sample, device: str) -> None:
    check("kvops", case, sample, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("case", "sample"), sample_params(lambda case: kinds(case)[:1]))
def test_peer_name(case: OpCase, sample: Sample, device: str) -> None:
    check(PEER_NAMESPACES[case.name], case, sample, device)


def test_the_excuse_is_needed() -> None:
    case = CASES["merge_attn_states"]
    arguments = tuple(make_call(case, kinds(case)[0], "cpu").positional())
    operator = torch.ops._C.merge_attn_states.default
    with pytest.raises(Exception, match=r"int\(.*!"):
        torch.library.opcheck(operator, arguments, test_utils=EXCUSED["_C::merge_attn_states"])


def test_the_excuse_of_sglang_s_letters_is_needed() -> None:
    call = make_call(CASES["transfer_kv_direct"], kinds(CASES["transfer_kv_direct"])[0], "cpu")
    operator = torch.ops.sgl_kernel.transfer_kv_direct.default
    with pytest.raises(Exception, match="dst_layers"):
        torch.library.opcheck(operator, tuple(call.positional()), test_utils="test_schema")
