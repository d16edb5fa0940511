"""Operators pass autograd by: they return nothing, so torch's fallback for it would do nothing."""

from __future__ import annotations

import warnings

import pytest
import torch

import kvops
from devices import DEVICES
from kvops._native import OPERATORS


@pytest.mark.parametrize("key", ["AutogradCPU", "AutogradCUDA"])
def test_no_operator_has_a_result_or_stops_at_autograd(key: str) -> None:
    kvops.register_vllm_names()
    kvops.register_sglang_names()
    names = [f"kvops::{op.name}" for op in OPERATORS]
    names += [f"{op.peer_namespace}::{op.name}" for op in OPERATORS]
    for name in names:
        (schema,) = torch._C._jit_get_schemas_for_operator(name)
        assert not schema.returns
        table = dict(
            line.split(":", 1) for line in torch._C._dispatch_dump_table(name).splitlines()
        )
        assert table[key].strip().startswith("fallthrough"), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("out_needs_grad", [False, True])
def test_inputs_that_need_gradients(out_needs_grad: bool, device: str) -> None:
    """The same bytes, no history and no warning, as with the fallback."""
    parts = [torch.randn(5, 2, 16, device=device) for _ in range(2)]
    lses = [torch.randn(2, 5, device=device) for _ in range(2)]
    expected, out = torch.empty_like(parts[0]), torch.empty_like(parts[0])
    kvops.merge_attn_states(expected, None, parts[0], lses[0], parts[1], lses[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for part in parts:
            part.requires_grad_()
        out.requires_grad_(out_needs_grad)
        torch.ops.kvops.merge_attn_states(out, None, parts[0], lses[0], parts[1], lses[1], None)
    assert torch.equal(out.detach(), expected)
    assert out.requires_grad == out_needs_grad and out.grad_fn is None
