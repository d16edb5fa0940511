"""Arguments of wrong rank, shape, strides, memory or value, derived from valid ones.

Whatever they are, an operator refuses them before it writes a byte, or does what the reference
does with them: never a crash, a write elsewhere, or a result of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from registry import OpCase, Sample, entry_name
from support import (
    Call,
    assert_same_outcome,
    by_operator,
    complaint,
    copy_call,
    guard,
    kinds,
    make_call,
    reference_outcome,
    refusal,
    sample_params,
)
from tensor_bytes import byte_view, storage_end_bytes

INT64 = torch.iinfo(torch.int64)

# Everything that means something to any operator, and some that mean nothing to any.
STRINGS = (
    "auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla", "fp8_ds_mla_pow2",
    "ue8m0", "nvfp4", "nvfp4_linear", "", "AUTO", "fp8 ", "fp8\0", "float32", "int8",
    "nvfp4_4over6", "x" * 300,
)  # fmt: skip


def resized(tensor: Tensor, dim: int, size: int) -> Tensor:
    """A dense tensor with another size in one dimension; what is new holds zeros."""
    sizes = list(tensor.size())
    sizes[dim] = size
    result = torch.zeros(sizes, dtype=tensor.dtype, device=tensor.device)
    common = min(size, tensor.size(dim))
    source, target = tensor.narrow(dim, 0, common), result.narrow(dim, 0, common)
    byte_view(target).copy_(byte_view(source))
    return result


def restrided(tensor: Tensor, strides: Iterable[int]) -> Tensor:
    """The same elements with other strides."""
    result = torch.empty_strided(tensor.size(), strides, dtype=tensor.dtype, device=tensor.device)
    byte_view(result).copy_(byte_view(tensor))
    return result


def innermost(tensor: Tensor, dim: int) -> Tensor:
    """The same elements, laid out so that those of `dim` are neighbours."""
    return restrided(tensor, tensor.movedim(dim, -1).contiguous().movedim(-1, dim).stride())


def other_forms(tensor: Tensor, *, may_repeat: bool) -> Iterator[tuple[str, Tensor]]:
    """Tensors that differ from a valid one in rank, sizes or strides.

    `may_repeat`: an element may stand for others too. Not so for outputs, where the last write
    would win, and not where an address must fit a size.
    """
    yield "one dimension more", tensor.unsqueeze(0)
    yield "one dimension more at the end", tensor.unsqueeze(-1)
    for dim, size in enumerate(tensor.size()):
        yield f"dimension {dim} dropped", tensor.select(dim, 0)
        for other in (0, 1, size - 1, size + 1, 2 * size):
            if other != size:
                yield f"{other} in dimension {dim}", resized(tensor, dim, other)
        yield f"dimension {dim} innermost", innermost(tensor, dim)
        if may_repeat:
            repeated = tensor.select(dim, 0).unsqueeze(dim).expand_as(tensor)
            yield f"stride 0 in dimension {dim}", repeated
    if tensor.dim() > 0:
        spaced = [2 * stride for stride in tensor.contiguous().stride()]
        yield "every second element", restrided(tensor, spaced)


def argument_params(choose: Callable[[Any], bool]) -> list[Any]:
    """`(case, sample, name)` for the chosen arguments of one sample of each kind."""
    return [
        pytest.param(*param.values, name, id=f"{param.id}-{name}")
        for param in sample_params(kinds)
        for name, value in make_call(*param.values, "cpu").args.items()
        if choose(value) and not name.startswith("_")
    ]


def complaints(valid: Call, name: str, values: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """What is wrong with how the operator takes other values of one argument, by value."""
    found = {}
    for description, value in values:
        call = guard(valid.case, {**valid.args, name: value})
        problem = complaint(call, by_operator)
        if problem is not None:
            found[description] = problem
    return found


is_tensor = pytest.mark.parametrize(
    ("case", "sample", "name"), argument_params(lambda value: isinstance(value, Tensor))
)
is_string = pytest.mark.parametrize(
    ("case", "sample", "name"), argument_params(lambda value: isinstance(value, str))
)
is_int = pytest.mark.parametrize(
    ("case", "sample", "name"), argument_params(lambda value: type(value) is int)
)


def params_where(choose: Callable[[OpCase, str], bool], *, every_kind: bool = False) -> list[Any]:
    """Those of the tensor arguments whose operator and name are chosen."""
    found = []
    for param in argument_params(lambda value: isinstance(value, Tensor)):
        case, sample, name = param.values
        if choose(case, name) and (every_kind or sample is kinds(case)[0]):
            found.append(param)
    return found


def is_required(case: OpCase, name: str) -> bool:
    """Whether the schema says `Tensor`: not `Tensor?`, nor a list, whose entries torch checks."""
    schema = getattr(torch.ops.kvops, case.name).default._schema
    return any(
        argument.name == name and argument.type.kind() == "TensorType"
        for argument in schema.arguments
    )


def is_written(case: OpCase, name: str) -> bool:
    return entry_name(name) in (*case.outputs, *case.scratch)


@pytest.mark.parametrize(("case", "sample", "name"), params_where(is_required, every_kind=True))
def test_none(case: OpCase, sample: Sample, name: str) -> None:
    """torch takes it for any tensor. It is refused, unless the call has no use for the argument."""
    valid = make_call(case, sample, "cpu")
    call = replace(valid, args={**valid.args, name: None})
    expected = reference_outcome(valid)
    message = refusal(call, by_operator)
    if message is None:
        assert not is_written(case, name)
        assert_same_outcome(valid, expected)
    else:
        assert name in message and "None" in message, message


@pytest.mark.parametrize(("case", "sample", "name"), params_where(is_written))
def test_expanded_outputs(case: OpCase, sample: Sample, name: str) -> None:
    """As in torch: where many elements have one place, what is written there means nothing."""
    valid = make_call(case, sample, "cpu")
    tensor = valid.args[name]
    for dim, size in enumerate(tensor.size()):
        if size > 1:
            expanded = tensor.select(dim, 0).unsqueeze(dim).expand_as(tensor)
            message = refusal(guard(case, {**valid.args, name: expanded}), by_operator)
            assert message is not None and name in message, f"dimension {dim}: {message}"


@pytest.mark.parametrize(
    ("case", "sample", "name"), params_where(lambda case, name: not is_written(case, name))
)
def test_on_meta(case: OpCase, sample: Sample, name: str) -> None:
    """One tensor without memory takes the whole call to the fake kernel, which writes nothing."""
    valid = make_call(case, sample, "cpu")
    call = replace(valid, args={**valid.args, name: valid.args[name].to("meta")})
    message = refusal(call, by_operator)
    assert message is not None and entry_name(name) in message and "got meta" in message, message


@is_tensor
def test_other_forms(case: OpCase, sample: Sample, name: str) -> None:
    call = make_call(case, sample, "cpu")
    may_repeat = name not in call.outputs() and not case.addresses
    forms = other_forms(call.args[name], may_repeat=may_repeat)
    assert complaints(call, name, forms) == {}


@pytest.mark.parametrize("missing_bytes", [None, 1], ids=["freed", "shrunk"])
@is_tensor
def test_storage_too_small(
    case: OpCase, sample: Sample, name: str, missing_bytes: int | None
) -> None:
    call = make_call(case, sample, "cpu")
    intact = copy_call(call)
    tensor = call.args[name]
    left_bytes = 0 if missing_bytes is None else storage_end_bytes(tensor) - missing_bytes
    tensor.untyped_storage().resize_(left_bytes)
    if refusal(call, by_operator) is None:
        assert name not in call.outputs()
        assert_same_outcome(call, reference_outcome(intact))


@is_string
def test_other_strings(case: OpCase, sample: Sample, name: str) -> None:
    call = make_call(case, sample, "cpu")
    assert complaints(call, name, zip(STRINGS, STRINGS, strict=True)) == {}


@is_int
def test_other_integers(case: OpCase, sample: Sample, name: str) -> None:
    call = make_call(case, sample, "cpu")
    value = call.args[name]
    others = {INT64.min, -1, 0, 1, value - 1, value + 1, 2 * value, 2**31, INT64.max} - {value}
    if case.addresses and name == "item_size":  # nobody knows how much memory an address is of
        others = {other for other in others if other < value}
    assert complaints(call, name, ((str(other), other) for other in others)) == {}
