"""What the generic tests share: building the arguments of a call, guarding them, judging results.

A :class:`Call` holds the arguments of one call in storages of their own. Views of one storage
still share one, strides are kept, and every byte that no argument covers (before, after and between
rows) is a guard byte::

    call = make_call(case, sample, "cpu")
    expected = reference_outcome(call)
    by_operator(call)
    assert_same_outcome(call, expected)
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import kvops
from devices import wait_for_gpu
from kvops._native import OPERATORS
from kvops.reference import REFERENCE
from registry import Args, OpCase, Sample, all_cases, entry_name, passed
from tensor_bytes import byte_view, has_memory

CASES = all_cases()
PEER_NAMESPACES = {operator.name: operator.peer_namespace for operator in OPERATORS}

_GUARD_BYTES = 64  # a multiple of every element size
_MAX_STORAGE_BYTES = 64 << 20
# NaN in every floating-point format: an input's guard bytes that are read show in the result.
_INPUT_GUARD = 0xFF
# Something else, so that a guard byte copied from an input to an output is seen.
_OUTPUT_GUARD = 0xA7


@dataclass(frozen=True)
class _Buffer:
    """One storage: guard bytes, what the arguments' storage held, guard bytes."""

    arguments: tuple[str, ...]  # names of those that live in it
    content: Tensor  # uint8 [bytes]
    # bool [bytes], on the CPU: belongs to an argument that is written
    is_output: Tensor
    # Differs between copies of the same arguments: it holds addresses.
    is_address_table: bool

    def bytes(self) -> Tensor:
        """uint8 on the CPU: the bytes as they are now; none if a test has freed them."""
        wait_for_gpu()
        return self.content.cpu() if has_memory(self.content) else torch.empty(0, dtype=torch.uint8)

    def holds_output(self) -> bool:
        return bool(self.is_output.any())


@dataclass(frozen=True)
class Call:
    """The arguments of one call of an operator, and the buffers that hold its tensors."""

    case: OpCase
    args: Args
    buffers: tuple[_Buffer, ...]

    def positional(self) -> list[Any]:
        """The operator's arguments, without the memory behind address tables."""
        return list(self.keywords().values())

    def keywords(self) -> Args:
        """The same by name."""
        return passed(self.args)

    def content(self) -> list[Tensor]:
        """A copy of every byte of every buffer, on the CPU."""
        return [buffer.bytes().clone() for buffer in self.buffers]

    def outputs(self) -> dict[str, Tensor]:
        """The tensors that the operator writes, scratch included."""
        return {
            name: self.args[name]
            for wanted in dict.fromkeys((*self.case.outputs, *self.case.scratch))
            for name in self.args
            if entry_name(name) == wanted and isinstance(self.args[name], Tensor)
        }


def make_call(case: OpCase, sample: Sample, device: str, *, misaligned: bool = False) -> Call:
    """A sample's arguments, the same in every run."""
    return guard(case, make_args(case, sample, device), misaligned=misaligned)


def make_args(case: OpCase, sample: Sample, device: str, seed: int = 0) -> Args:
    """The same as the sample makes them: not guarded. Another seed gives other content."""
    name = f"{case.name}-{sample.id}{f'-{seed}' if seed else ''}"

    def make(device: str) -> Args:
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        return sample.make(torch.device(device), generator)

    args = make(device)
    return args if device == "cpu" else _with_layout_of(make("cpu"), args)


def _with_layout_of(on_cpu: Args, args: Args) -> Args:
    """Tensors with the strides that they have on the CPU: `Tensor.to` closes gaps."""
    changed = dict(args)
    for name, tensor in args.items():
        model = on_cpu[name]
        if isinstance(tensor, Tensor) and tensor.stride() != model.stride():
            storage = torch.empty(0, dtype=torch.uint8).set_(model.untyped_storage())
            changed[name] = _same_view(model, storage.to(tensor.device))
    return changed


def guard(case: OpCase, args: Args, *, misaligned: bool = False) -> Call:
    """Copy arguments into guarded buffers.

    Args:
        case: the operator.
        args: arguments by name. Tensors without memory of their own (on "meta", or freed) are
            taken over as they are.
        misaligned: put every storage at an address that is a multiple of its largest element, but
            of nothing more.
    """
    copied = dict(args)
    buffers = []
    for names in _by_storage(args):
        tensors = [args[name] for name in names]
        offset = _GUARD_BYTES + (max(t.element_size() for t in tensors) if misaligned else 0)
        buffer = _copy_storage(case, names, tensors, offset)
        buffers.append(buffer)
        for name in names:
            copied[name] = _same_view(args[name], buffer.content, offset)
    _move_tables(case, args, copied)
    return Call(case, copied, tuple(buffers))


def copy_call(call: Call, device: str | None = None) -> Call:
    """The same call again, guard bytes and all, in memory of its own."""
    return _copy_call(
        call,
        lambda buffer: _moved(
            buffer.content, device or buffer.content.device, pin=_is_pinned(buffer.content)
        ),
    )


def copy_call_to_devices_of(call: Call, args: Args) -> Call:
    """The same again, each argument on the device that it has in `args`, pinned if it is there."""

    def move(buffer: _Buffer) -> Tensor:
        model = args[buffer.arguments[0]]
        return _moved(buffer.content, model.device, pin=_is_pinned(model))

    return _copy_call(call, move)


def _copy_call(call: Call, move: Callable[[_Buffer], Tensor]) -> Call:
    copied = dict(call.args)
    buffers = []
    for buffer in call.buffers:
        content = move(buffer)
        buffers.append(replace(buffer, content=content))
        for name in buffer.arguments:
            copied[name] = _same_view(call.args[name], content)
    _move_tables(call.case, call.args, copied)
    return Call(call.case, copied, tuple(buffers))


def invert_outputs(call: Call) -> None:
    """Flip every bit of what the operator writes: results must not depend on it."""
    for tensor in call.outputs().values():
        byte_view(tensor).bitwise_not_()


def reference_outcome(call: Call) -> Call:
    """What the reference makes of the same arguments, on the CPU."""
    expected = copy_call(call, "cpu")
    by_reference(expected)
    return expected


def assert_same_outcome(actual: Call, expected: Call) -> None:
    """Outputs agree by the case's rule, and every other byte of every buffer is equal."""
    wait_for_gpu()
    case = actual.case
    for name, tensor in actual.outputs().items():
        if entry_name(name) not in case.scratch:
            case.compare(name, tensor.cpu(), expected.args[name], expected.args)
    for left, right in zip(actual.buffers, expected.buffers, strict=True):
        if left.is_address_table or not has_memory(left.content):
            continue
        changed = ((left.bytes() != right.bytes()) & ~left.is_output).nonzero().flatten()
        assert changed.numel() == 0, (
            f"{changed.numel()} bytes outside of the outputs changed in the storage of "
            f"{', '.join(left.arguments)}, the first at {int(changed[0]) - _GUARD_BYTES}"
        )


def assert_untouched(call: Call, before: list[Tensor]) -> None:
    """Every byte of every buffer is what :meth:`Call.content` said."""
    for buffer, content in zip(call.buffers, before, strict=True):
        changed = int((buffer.bytes() != content).sum())
        assert changed == 0, f"{changed} bytes of {buffer.arguments} were written"


def refusal(call: Call, run: Callable[[Call], None]) -> str | None:
    """The message with which an operator refuses a call, None if it accepts.

    A refusal must be a RuntimeError that names the operator, and leave every byte as it was.
    """
    before = call.content()
    try:
        run(call)
    except RuntimeError as error:
        message = str(error)
        assert f"kvops::{call.case.name}: " in message, message
        assert_untouched(call, before)
        return message
    return None


def complaint(call: Call, run: Callable[[Call], None]) -> str | None:
    """What is wrong with how an operator takes doubtful arguments; None if nothing.

    It may refuse them (see :func:`refusal`), or do what the reference does.
    """
    mirror = copy_call(call)
    try:
        if refusal(call, run) is not None:
            return None
    except AssertionError as error:
        return f"refused badly: {error}"
    try:
        expected = reference_outcome(mirror)
    except Exception as error:  # the reference takes its arguments to be valid
        return f"accepted, but the reference cannot: {type(error).__name__}: {error}"
    try:
        assert_same_outcome(call, expected)
    except AssertionError as error:
        return f"accepted with a wrong result: {error}"
    return None


def by_wrapper(call: Call) -> None:
    """Call `kvops.<operator>`."""
    getattr(kvops, call.case.name)(*call.positional())


def by_operator(call: Call) -> None:
    """Call `torch.ops.kvops.<operator>`."""
    getattr(torch.ops.kvops, call.case.name)(*call.positional())


def by_peer_name(call: Call) -> None:
    """Call the operator under the name that vLLM or SGLang has for it."""
    namespace = getattr(torch.ops, PEER_NAMESPACES[call.case.name])
    getattr(namespace, call.case.name)(*call.positional())


def by_reference(call: Call) -> None:
    """Let the reference work on the arguments, which must be on the CPU."""
    REFERENCE[call.case.name](*call.positional())


SURFACES = [
    pytest.param(by_wrapper, id="wrapper"),
    pytest.param(by_operator, id="kvops"),
    pytest.param(by_peer_name, id="peer"),
]


def sample_params(choose: Callable[[OpCase], tuple[Sample, ...]] | None = None) -> list[Any]:
    """`(case, sample)` for parametrize, with ids `<operator>-<sample>`; all samples by default."""
    return [
        pytest.param(case, sample, id=f"{case.name}-{sample.id}")
        for case in CASES.values()
        for sample in (choose(case) if choose else case.samples)
    ]


@cache
def kinds(case: OpCase) -> tuple[Sample, ...]:
    """One sample for each combination of dtypes, strings, flags and absent arguments.

    The first of each kind with no empty tensor, so that there is something to get wrong.
    """
    found: dict[Any, Sample] = {}
    for sample in case.samples:
        values = make_args(case, sample, "cpu").values()
        if all(value.numel() for value in values if isinstance(value, Tensor)):
            found.setdefault(kind_of(case, sample), sample)
    return tuple(found.values())


@cache
def kind_of(case: OpCase, sample: Sample) -> tuple[Any, ...]:
    """The dtypes, strings, flags and absent arguments of a sample."""
    return tuple(_kind(value) for value in make_args(case, sample, "cpu").values())


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype
    return value if isinstance(value, (str, bool)) or value is None else type(value)


def _by_storage(args: Args) -> list[list[str]]:
    """Names of tensor arguments, those that share a storage together."""
    groups: dict[Any, list[str]] = {}
    for name, value in args.items():
        if isinstance(value, Tensor) and has_memory(value):
            # Empty storages all have address 0 and are not shared.
            groups.setdefault(value.untyped_storage().data_ptr() or name, []).append(name)
    return list(groups.values())


def _move_tables(case: OpCase, args: Args, copied: Args) -> None:
    """Let address tables point into the copy of the memory that they pointed into."""
    for table, memory in case.addresses.items():
        # Else a test has made it something else.
        if copied[table].dtype in (torch.int64, torch.uint64):
            shift = copied[memory].data_ptr() - args[memory].data_ptr()
            copied[table].view(torch.int64).add_(shift)


def _copy_storage(case: OpCase, names: list[str], tensors: list[Tensor], offset: int) -> _Buffer:
    storage = tensors[0].untyped_storage()
    assert storage.nbytes() <= _MAX_STORAGE_BYTES, f"{names} are too big to be copied by every test"
    total = offset + storage.nbytes() + _GUARD_BYTES
    written = {*case.outputs, *case.scratch}
    pattern = _INPUT_GUARD if written.isdisjoint(map(entry_name, names)) else _OUTPUT_GUARD
    content = torch.full([total], pattern, dtype=torch.uint8, device=tensors[0].device)
    if _is_pinned(tensors[0]):
        content = content.pin_memory()
    is_output = torch.zeros(total, dtype=torch.bool)
    for name, tensor in zip(names, map(_without_repeats, tensors), strict=True):
        byte_view(_same_view(tensor, content, offset)).copy_(byte_view(tensor))
        if entry_name(name) in written:
            byte_view(_same_view(tensor, is_output, offset)).fill_(1)
    is_address_table = not case.addresses.keys().isdisjoint(names)
    return _Buffer(tuple(names), content, is_output, is_address_table)


def _is_pinned(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and torch.cuda.is_available() and tensor.is_pinned()


def _moved(content: Tensor, device: torch.device | str, *, pin: bool) -> Tensor:
    copied = content.to(device, copy=True)
    return copied.pin_memory() if pin and not copied.is_cuda else copied


def _without_repeats(tensor: Tensor) -> Tensor:
    """A view that has elements of an expanded tensor once only."""
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0:
            tensor = tensor.narrow(dim, 0, min(1, tensor.size(dim)))
    return tensor


def _same_view(tensor: Tensor, buffer: Tensor, offset: int = 0) -> Tensor:
    """`tensor`'s dtype, sizes and strides over a buffer that holds its storage from `offset` on."""
    view = torch.empty(0, dtype=tensor.dtype, device=buffer.device)
    return view.set_(
        buffer.untyped_storage(),
        offset // tensor.element_size() + tensor.storage_offset(),
        tensor.size(),
        tensor.stride(),
    )
