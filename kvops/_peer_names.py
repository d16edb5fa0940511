"""Names that other libraries have for the operators: `torch.ops._C_cache_ops.<op>` and
`torch.ops._C.<op>` are vLLM's, `torch.ops.sgl_kernel.<op>` SGLang's.

A name can be defined once per process: a second definition aborts it (libraries built with torch
>= 2.13 headers) or silently replaces the kernels (older ones), and a name cannot be given back.
So kvops claims each name only when somebody first looks it up in `torch.ops`, and not at all

* where another library has defined it already (that library keeps it; a warning says so),
* where a distribution is installed that will define it, unless asked:
  `kvops.register_vllm_names()` or KVOPS_VLLM_NAMES=1, `kvops.register_sglang_names()` or
  KVOPS_SGLANG_NAMES=1. With 0 none are ever claimed.

`torch.ops.kvops.<op>` and the functions of this package always reach kvops' own kernels.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import torch

from . import _autograd, _fakes
from ._graphs import keep_out_of_graphs_if_needed
from ._native import DEVICE_QUERIES, OPERATORS, Operator, libraries


@dataclass(frozen=True)
class Peer:
    """A project whose names kvops can hold, and who defines them where it is installed."""

    title: str
    namespaces: tuple[str, ...]
    owners: tuple[str, ...]  # distributions
    variable: str  # of the environment

    def names(self) -> list[Operator]:
        """Every name of the peer's that kvops can hold."""
        return [op for op in (*OPERATORS, *DEVICE_QUERIES) if op.peer_namespace in self.namespaces]

    def installed_owner(self) -> str | None:
        """An installed distribution that will define the names itself, if any."""
        for name in self.owners:
            try:
                metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue
            return name
        return None

    def claimed(self) -> list[str]:
        """The names of the peer's that kvops holds, as "namespace::name"."""
        return sorted(name for name, op in _claimed.items() if op.peer_namespace in self.namespaces)


VLLM = Peer(
    "vLLM",
    namespaces=("_C_cache_ops", "_C", "_C_cuda_utils"),
    owners=("vllm", "sgl-kernel"),
    variable="KVOPS_VLLM_NAMES",
)
SGLANG = Peer(
    "SGLang",
    namespaces=("sgl_kernel",),
    owners=("sglang-kernel", "sgl-kernel", "sglang-kernel-xpu"),
    variable="KVOPS_SGLANG_NAMES",
)
PEERS = (VLLM, SGLANG)

_lock = threading.RLock()
_claimed: dict[str, Operator] = {}


def register_vllm_names() -> list[str]:
    """Claim all of vLLM's names that are free, now and whatever is installed.

    Returns:
        The names that kvops holds afterwards, as "namespace::name".

    Raises nothing; names that another library holds stay with it, and a warning lists them.
    A library that defines the same names later ends the process: claim them only if none will.
    """
    return _register(VLLM)


def register_sglang_names() -> list[str]:
    """Claim all of SGLang's names that are free, now and whatever is installed.

    Returns:
        The names that kvops holds afterwards, as "namespace::name".

    Raises nothing; names that another library holds stay with it, and a warning lists them.
    A library that defines the same names later ends the process: claim them only if none will.
    """
    return _register(SGLANG)


def set_up() -> None:
    """Called by `import kvops`: decide by the environment and by what is installed."""
    for peer in PEERS:
        wish = os.environ.get(peer.variable, "")
        if wish == "1":
            _register(peer)
            continue
        if wish not in ("", "0"):
            warnings.warn(f"{peer.variable} must be 0, 1 or unset, got {wish!r}", stacklevel=4)
        if wish == "0" or peer.installed_owner() is not None:
            continue
        _warn_of_foreign(peer)
        for namespace in peer.namespaces:
            _claim_on_first_look(namespace)


def _register(peer: Peer) -> list[str]:
    with _lock:
        _warn_of_foreign(peer)
        for operator in peer.names():
            if not _is_defined(operator):
                _claim(operator)
    return peer.claimed()


def _claim_on_first_look(namespace: str) -> None:
    """Hook `torch.ops.<namespace>`: an attribute that is not there yet is claimed if it is ours.

    The namespace object is a module, and a module's own `__getattr__` (PEP 562) is asked before
    torch's look-up fails. Once claimed, torch caches the operator and the hook is not asked again.
    """
    names = (*OPERATORS, *DEVICE_QUERIES)
    by_name = {op.name: op for op in names if op.peer_namespace == namespace}
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
    return bool(torch._C._jit_get_schemas_for_operator(_qualified(operator)))


def _qualified(operator: Operator) -> str:
    return f"{operator.peer_namespace}::{operator.name}"


def _claim(operator: Operator) -> None:
    name = operator.name.encode()
    if operator in DEVICE_QUERIES:
        if libraries.cuda is not None and libraries.cuda.kvops_cuda_claim_device_query(name):
            _claimed[_qualified(operator)] = operator
        return
    if not libraries.cpu.kvops_claim_peer_name(name):
        return
    if libraries.cuda is not None:
        libraries.cuda.kvops_cuda_claim_peer_name(name)
    _claimed[_qualified(operator)] = operator
    _fakes.register(operator.peer_namespace, operator.name)
    _autograd.pass_by(operator.peer_namespace, operator.name)
    keep_out_of_graphs_if_needed(operator.peer_namespace, operator.name)


def _warn_of_foreign(peer: Peer) -> None:
    foreign = [
        _qualified(operator)
        for operator in peer.names()
        if _qualified(operator) not in _claimed and _is_defined(operator)
    ]
    if foreign:
        warnings.warn(
            f"another library has defined {', '.join(foreign)}: these names keep its kernels;"
            " kvops.* and torch.ops.kvops.* reach those of kvops",
            stacklevel=5,
        )
