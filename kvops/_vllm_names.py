"""vLLM's names for the operators: `torch.ops._C_cache_ops.<op>`, `torch.ops._C.<op>`.

A name can be defined once per process: a second definition aborts it (libraries built with torch
>= 2.13 headers) or silently replaces the kernels (older ones), and a name cannot be given back.
So kvops claims each name only when somebody first looks it up in `torch.ops`, and not at all

* where another library has defined it already (that library keeps it; a warning says so),
* where a distribution is installed that will define it (vllm, sgl-kernel), unless asked:
  `kvops.register_vllm_names()` or KVOPS_VLLM_NAMES=1. KVOPS_VLLM_NAMES=0 never claims any.

`torch.ops.kvops.<op>` and the functions of this package always reach kvops' own kernels.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from importlib import metadata

import torch

from . import _fakes
from ._graphs import keep_out_of_graphs
from ._native import DEVICE_QUERIES, OPERATORS, Operator, libraries

# Distributions that define operators under these names when they are imported.
OWNERS = ("vllm", "sgl-kernel")
UNTRACEABLE = ("swap_blocks_batch",)

# Every name of vLLM's that kvops can hold.
NAMES = [*OPERATORS, *DEVICE_QUERIES]

_lock = threading.RLock()
_claimed: dict[str, Operator] = {}


def claimed() -> list[str]:
    """The names of vLLM's that kvops holds, as "namespace::name"."""
    return sorted(_claimed)


def installed_owner() -> str | None:
    """An installed distribution that will define vLLM's names itself, if any."""
    for name in OWNERS:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        return name
    return None


def register_vllm_names() -> list[str]:
    """Claim all of vLLM's names that are free, now and whatever is installed.

    Returns:
        The names that kvops holds afterwards, as "namespace::name".

    Raises nothing; names that another library holds stay with it, and a warning lists them.
    A library that defines the same names later ends the process: claim them only if none will.
    """
    with _lock:
        _warn_of_foreign(NAMES)
        for operator in NAMES:
            if not _is_defined(operator):
                _claim(operator)
    return claimed()


def set_up() -> None:
    """Called by `import kvops`: decide by KVOPS_VLLM_NAMES and by what is installed."""
    wish = os.environ.get("KVOPS_VLLM_NAMES", "")
    if wish == "1":
        register_vllm_names()
        return
    if wish not in ("", "0"):
        warnings.warn(f"KVOPS_VLLM_NAMES must be 0, 1 or unset, got {wish!r}", stacklevel=3)
    if wish == "0" or installed_owner() is not None:
        return
    _warn_of_foreign(NAMES)
    for namespace in dict.fromkeys(operator.vllm_namespace for operator in NAMES):
        _claim_on_first_look(namespace)


def _claim_on_first_look(namespace: str) -> None:
    """Hook `torch.ops.<namespace>`: an attribute that is not there yet is claimed if it is ours.

    The namespace object is a module, and a module's own `__getattr__` (PEP 562) is asked before
    torch's look-up fails. Once claimed, torch caches the operator and the hook is not asked again.
    """
    by_name = {op.name: op for op in NAMES if op.vllm_namespace == namespace}
    operators = getattr(torch.ops, namespace)

    def claim_if_ours(name: str) -> object:
        operator = by_name.get(name)
        if operator is None:
            raise AttributeError(name)
        with _lock:
            if not _is_defined(operator):
                _claim(operator)
            # Claiming looks the operator up itself, or another thread did meanwhile. Left to
            # torch, this look-up would make a second object, which dynamo was told nothing about.
            if name in vars(operators):
                return vars(operators)[name]
        raise AttributeError(name)

    hook: Callable[[str], object] = claim_if_ours
    operators.__dict__["__getattr__"] = hook


def _is_defined(operator: Operator) -> bool:
    qualified = f"{operator.vllm_namespace}::{operator.name}"
    return bool(torch._C._jit_get_schemas_for_operator(qualified))


def _claim(operator: Operator) -> None:
    name = operator.name.encode()
    if operator in DEVICE_QUERIES:
        if libraries.cuda is not None and libraries.cuda.kvops_cuda_claim_device_query(name):
            _claimed[f"{operator.vllm_namespace}::{operator.name}"] = operator
        return
    if not libraries.cpu.kvops_claim_vllm_name(name):
        return
    if libraries.cuda is not None:
        libraries.cuda.kvops_cuda_claim_vllm_name(name)
    _claimed[f"{operator.vllm_namespace}::{operator.name}"] = operator
    _fakes.register(operator.vllm_namespace, operator.name)
    if operator.name in UNTRACEABLE:
        keep_out_of_graphs(getattr(getattr(torch.ops, operator.vllm_namespace), operator.name))


def _warn_of_foreign(operators: list[Operator]) -> None:
    names = [f"{op.vllm_namespace}::{op.name}" for op in operators]
    foreign = [
        name
        for name, op in zip(names, operators, strict=True)
        if name not in _claimed and _is_defined(op)
    ]
    if foreign:
        warnings.warn(
            f"another library has defined {', '.join(foreign)}: these names keep its kernels;"
            " kvops.* and torch.ops.kvops.* reach those of kvops",
            stacklevel=4,
        )
