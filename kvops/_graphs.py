"""Keeps operators whose schemas do not say what they read and write out of compiled graphs.

`swap_blocks_batch` gets tables of addresses and can declare no mutation; others get such tables for
what they read; SGLang's schemas declare next to nothing. A compiler that believes the schema drops
the call, or moves it past writes to the same memory. So dynamo is told to break the graph there:
bytes are right, and `fullgraph=True` raises an error that names the operator.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

_DYNAMO = "torch._dynamo"
_REASON = "its schema does not name all memory that it works on: a compiled graph cannot see it"
# Those that read through tables of addresses, whatever they declare to be written.
_TAKES_ADDRESSES = {
    "swap_blocks_batch",
    "transfer_kv_all_layer",
    "transfer_kv_all_layer_lf_pf",
    "transfer_kv_all_layer_lf_ph",
    "transfer_kv_all_layer_mla",
    "transfer_kv_all_layer_mla_lf_pf",
}
_kept_out: list[Any] = []


def keep_out_of_graphs_if_needed(namespace: str, name: str) -> None:
    """Do so if the operator takes addresses, or declares no write: each of ours writes."""
    (schema,) = torch._C._jit_get_schemas_for_operator(f"{namespace}::{name}")
    if name in _TAKES_ADDRESSES or not any(argument.is_write for argument in schema.arguments):
        keep_out_of_graphs(getattr(getattr(torch.ops, namespace), name))


def keep_out_of_graphs(operator: Any) -> None:
    """Make dynamo break the graph at calls of this torch.ops operator (all its overloads)."""
    _kept_out.extend([operator, operator.default])
    if _DYNAMO in sys.modules:
        _tell_dynamo()
    elif not any(isinstance(finder, _OnDynamoImport) for finder in sys.meta_path):
        # Importing dynamo takes a second: wait until somebody else does.
        sys.meta_path.insert(0, _OnDynamoImport())


def _tell_dynamo() -> None:
    import torch._dynamo

    for operator in _kept_out:
        torch._dynamo.disallow_in_graph(operator)
        # What torch.compiler.disable() leaves on functions. Without it dynamo breaks the graph as
        # well, but warns that it knows no such builtin and asks for a bug report.
        operator._torchdynamo_disable = True
        operator._torchdynamo_disable_msg = _REASON


class _OnDynamoImport(MetaPathFinder):
    """Calls `_tell_dynamo` right after dynamo's first import, then is gone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _DYNAMO:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenTellDynamo(spec.loader)
        return spec


class _ThenTellDynamo(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _tell_dynamo()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
