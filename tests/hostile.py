"""Values of index tensors that are out of range, and calls that have one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from registry import UNBOUNDED, OpCase
from support import Call, copy_call

PLACES = ("first", "middle", "last")


def index_of(tensor: Tensor, place: str) -> tuple[int, ...]:
    flat = {"first": 0, "middle": tensor.numel() // 2, "last": tensor.numel() - 1}[place]
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), tensor.shape))


def hostile_values(case: OpCase, call: Call, name: str) -> list[int]:
    """Values that are out of range for an argument, some as extreme as its dtype allows."""
    limits = torch.iinfo(call.args[name].dtype)
    limit = case.hostile[name](call.args)
    values = {limits.min, -2, -1, limit, limit + 1, 2**31 - 1, 2**40, limits.max}
    if limit == UNBOUNDED:
        return sorted(value for value in values if value < 0)
    return sorted(value for value in values if value <= limits.max)


def bad_value(case: OpCase, call: Call, name: str) -> int:
    """The lowest value that is too large, or a negative one where none is."""
    limit = case.hostile[name](call.args)
    return -1 if limit == UNBOUNDED else limit


def with_value(call: Call, name: str, index: tuple[int, ...], value: int) -> Call:
    changed = copy_call(call)
    changed.args[name][index] = value
    return changed


def index_arguments(call: Call) -> list[str]:
    """Names of the index tensors that the call passes."""
    return [name for name in call.case.hostile if call.args.get(name) is not None]
