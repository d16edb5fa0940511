"""torch.compile does the same to every byte as eager mode, in one graph, with any sizes.

Compilers believe schemas: a call that writes more, or less, than it says is dropped or moved. So
every program writes all its tensors, calls the operator, and reads every tensor that it wrote.
Operators that work on addresses stay out of graphs and are tested elsewhere, as are all under
SGLang's names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import kvops
from devices import DEVICES
from registry import Args, OpCase, Sample, entry_name, passed
from support import CASES, PEER_NAMESPACES, kind_of, kinds, make_call, sample_params
from tensor_bytes import byte_view

OUT_OF_GRAPHS = {case.name for case in CASES.values() if case.addresses}
SGLANG_NAMES = {name for name in CASES if PEER_NAMESPACES[name] == "sgl_kernel"}
# One per shape of problem: plain copies, two caches written through slots, a reader of caches.
WITH_INDUCTOR = {"concat_mla_q", "reshape_and_cache_flash", "paged_attention_v1"}

Program = Callable[[Args, dict[str, Tensor]], list[Tensor]]

dynamic_or_not = pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def program(operator: Callable[..., None], outputs: tuple[str, ...], device: str) -> Program:
    """Writes every tensor, calls the operator, reads what it wrote on the device.

    What a GPU writes into host memory is there when the stream has come to it, not sooner.
    """

    def run(args: Args, contents: dict[str, Tensor]) -> list[Tensor]:
        for name, content in contents.items():
            args[name].copy_(content)
        operator(*passed(args).values())
        written = [args[name] for name in args if entry_name(name) in outputs]
        return [t.clone() for t in written if t is not None and t.device.type == device]

    return run


def run_on_fresh_arguments(run: Program, case: OpCase, sample: Sample, device: str) -> list[Tensor]:
    """What a program returns, then all bytes of all its arguments."""
    call = make_call(case, sample, device)
    tensors = {name: value for name, value in call.args.items() if isinstance(value, Tensor)}
    contents = {name: tensor.clone() for name, tensor in tensors.items()}
    for tensor in tensors.values():
        byte_view(tensor).bitwise_not_()
    returned = run(call.args, contents)
    return [byte_view(tensor).cpu() for tensor in returned] + call.content()


def check(operator: Callable[..., None], case: OpCase, samples: list[Sample], device: str, **how):
    """Compile once, run on every sample, compare with eager mode."""
    run = program(operator, case.outputs, device)
    compiled = torch.compile(run, fullgraph=True, **how)
    for sample in samples:
        expected = run_on_fresh_arguments(run, case, sample, device)
        actual = run_on_fresh_arguments(compiled, case, sample, device)
        for left, right in zip(actual, expected, strict=True):
            assert torch.equal(left, right)


def traced(choose: Callable[[OpCase], Iterable[Sample]], names: Iterable[str] = CASES) -> Any:
    """Parametrise with chosen samples of the operators that belong into graphs."""
    names = set(names) - OUT_OF_GRAPHS
    return pytest.mark.parametrize(
        ("case", "sample"),
        sample_params(lambda case: tuple(choose(case)) if case.name in names else ()),
    )


def first(case: OpCase) -> Iterable[Sample]:
    return kinds(case)[:1]


@pytest.mark.parametrize("device", DEVICES)
@dynamic_or_not
@traced(kinds)
def test_wrapper(case: OpCase, sample: Sample, device: str, dynamic: bool) -> None:
    operator = getattr(kvops, case.name)
    check(operator, case, [sample], device, backend="aot_eager", dynamic=dynamic)


@pytest.mark.parametrize("device", DEVICES)
@traced(first, set(CASES) - {"merge_attn_states"} - SGLANG_NAMES)  # vLLM's letter: test_opcheck
def test_vllm_name(case: OpCase, sample: Sample, device: str) -> None:
    operator = getattr(getattr(torch.ops, PEER_NAMESPACES[case.name]), case.name)
    check(operator, case, [sample], device, backend="aot_eager", dynamic=True)


@pytest.mark.parametrize("device", DEVICES)
@traced(first)
def test_other_sizes(case: OpCase, sample: Sample, device: str) -> None:
    """One compiled function meets every sample that has the same kind of arguments."""
    samples = [other for other in case.samples if kind_of(case, other) == kind_of(case, sample)]
    operator = getattr(kvops, case.name)
    check(operator, case, samples, device, backend="aot_eager", dynamic=True)


@pytest.mark.parametrize("device", DEVICES)
@dynamic_or_not
@traced(first, WITH_INDUCTOR)
def test_inductor(case: OpCase, sample: Sample, device: str, dynamic: bool) -> None:
    operator = getattr(kvops, case.name)
    check(operator, case, [sample], device, backend="inductor", dynamic=dynamic)


# Not inductor with dynamic sizes: it forgets where in a tensor a mutated view begins, unless the
# view comes from outside of the graph (pytorch/pytorch#198068, any operator that writes).
@pytest.mark.parametrize(
    ("backend", "dynamic"), [("aot_eager", False), ("aot_eager", True), ("inductor", False)]
)
def test_two_caches_that_are_views_of_one(backend: str, dynamic: bool) -> None:
    """Both outputs are views of one tensor, made within the graph, and it is used after them."""

    def run(packed: Tensor, tokens: Tensor, slots: Tensor, scale: Tensor) -> Tensor:
        packed.zero_()
        key_cache, value_cache = packed.unbind(1)
        kvops.reshape_and_cache_flash(
            tokens, tokens * 2, key_cache, value_cache, slots, "auto", scale, scale
        )
        return packed.clone()

    slots, scale = torch.tensor([5, 2, -1]), torch.ones(1)
    tokens = torch.randn(3, 2, 16)
    eager, compiled = (torch.full([3, 2, 4, 2, 16], torch.nan) for _ in range(2))
    expected = run(eager, tokens, slots, scale)
    optimised = torch.compile(run, fullgraph=True, backend=backend, dynamic=dynamic)
    actual = optimised(compiled, tokens, slots, scale)
    assert torch.equal(actual, expected) and torch.equal(compiled, eager)
    assert torch.equal(expected[1, 0, 1], tokens[0])
