"""Fake kernels, so that compilers can trace the operators.

Every operator returns nothing and writes only what its schema marks with `!`, so its fake does
nothing: shapes never change. torch would derive the same fake by itself for most of them, but an
explicit one is what `opcheck` and compilers may rely on.
"""

from __future__ import annotations

from typing import Any

import torch


def _does_nothing(*args: Any, **kwargs: Any) -> None:
    return None


def register(namespace: str, name: str) -> None:
    """Give `namespace::name` its fake kernel."""
    torch.library.register_fake(f"{namespace}::{name}", _does_nothing)
