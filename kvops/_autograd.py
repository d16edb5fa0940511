"""Operators pass autograd by.

Without a kernel of their own for it they would go through torch's fallback, which looks for
gradients that it would have to warn of: those of an operator's results. Every operator here returns
nothing and writes into tensors that it is given, where the fallback can do nothing in any case, so
this loses no warning and saves its time in every call.
"""

from __future__ import annotations

import torch

# Kept: a library object that is deleted takes its registrations back.
_libraries: dict[str, torch.library.Library] = {}


def pass_by(namespace: str, name: str) -> None:
    """Let the dispatcher go from `namespace::name` straight to the kernel of a device."""
    library = _libraries.get(namespace)
    if library is None:
        library = _libraries.setdefault(namespace, torch.library.Library(namespace, "IMPL"))
    library.impl(name, torch.library.fallthrough_kernel, "Autograd")
