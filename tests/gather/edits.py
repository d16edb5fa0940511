"""Edits of one argument of a call, for refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from registry import Args


def change(name: str, edit: Callable[[Any], Any]) -> Callable[[Args], None]:
    """Replace argument `name` by `edit` of it."""

    def run(args: Args) -> None:
        args[name] = edit(args[name])

    return run


def to_long(tensor: Tensor) -> Tensor:
    return tensor.long()


def every_second(tensor: Tensor) -> Tensor:
    """The same values with stride 2 in the last dimension."""
    return tensor.repeat_interleave(2, dim=-1)[..., ::2]
