"""Lets calls pass autograd by: the operators are for inference and have no gradients.

torch's default for an operator without an autograd kernel walks through all arguments of each call
to be able to warn of a missing gradient. That costs as much as the rest of a small call, half a
microsecond. A fallthrough sends calls straight to the kernel.
"""

from __future__ import annotations

import torch

_KEYS = ("AutogradCPU", "AutogradCUDA")
# Deleting a library takes its registrations back.
_libraries: dict[str, torch.library.Library] = {}


def pass_by(namespace: str, name: str) -> None:
    """Skip autograd for `namespace::name`."""
    if namespace not in _libraries:
        _libraries[namespace] = torch.library.Library(namespace, "IMPL")
    for key in _KEYS:
        _libraries[namespace].impl(name, torch.library.fallthrough_kernel, key)
