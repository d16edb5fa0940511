"""Fake kernels, so that compilers can trace the operators.

Every operator returns nothing and writes only what its schema marks with `!`, so its fake does
nothing: shapes never change. torch would derive the same fake by itself for most of them, but an
explicit one is what `opcheck` and compilers may rely on.

torch also comes here with tensors on "meta", and does so as soon as one of a call's tensors is
there. Where others have memory, doing nothing would lose a write without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def register(namespace: str, name: str) -> None:
    """Give `namespace::name` its fake kernel."""
    (schema,) = torch._C._jit_get_schemas_for_operator(f"{namespace}::{name}")
    torch.library.register_fake(f"{namespace}::{name}", _fake(name, schema.arguments))


def _fake(name: str, arguments: list[Any]) -> Callable[..., None]:
    names = [argument.name for argument in arguments]
    # Those that write through addresses name nothing that they write: all counts then.
    written = {argument.name for argument in arguments if argument.is_write} or set(names)

    def do_nothing(*args: Any, **kwargs: Any) -> None:
        on_meta = lost = None
        for argument, tensor in _tensors({**dict(zip(names, args, strict=False)), **kwargs}):
            if tensor.device.type == "meta":
                on_meta = on_meta or argument
            elif argument in written:
                lost = lost or (argument, tensor.device)
        if on_meta and lost:
            raise RuntimeError(
                f"kvops::{name}: {on_meta} must be on {lost[1]} like {lost[0]}, got meta"
            )

    return do_nothing


def _tensors(arguments: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in arguments.items():
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(tensor, Tensor):
                yield name, tensor
