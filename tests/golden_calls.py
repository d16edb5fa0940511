"""Loads the recorded calls of ``tests/golden`` (see its README) and judges the results of others.

::

    for call in load_calls():
        bound = call.bind("cpu")
        getattr(torch.ops.kvops, call.op)(*bound.args)
        assert bound.mismatches() == []

Needs torch and numpy only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN_FOLDER = Path(__file__).parent / "golden"
GROUPS = ("cache", "mla", "gather", "attention")

_POISON_BYTE = 0x5A

# Written by the operator, but holding intermediate results that no one else reads.
_SCRATCH = frozenset({"exp_sums", "max_logits", "tmp_out"})

# Allowed error of a row of attention, relative to its largest value, by dtype of the output.
_ROW_FACTORS = {"bfloat16": 1.2e-2, "float16": 2e-3, "float32": 3e-6}
_FP32_QUERY_OVER_FP8_FACTOR = 2e-3


@dataclass(frozen=True)
class ByteForByte:
    """Every byte must be the recorded one."""

    def mismatch(self, actual: Tensor, expected: Tensor) -> str | None:
        actual_bytes, expected_bytes = as_bytes(actual), as_bytes(expected)
        differs = (actual_bytes != expected_bytes).nonzero().flatten()
        if differs.numel() == 0:
            return None
        first = int(differs[0])
        return (
            f"{differs.numel()} of {expected_bytes.numel()} bytes differ, the first at {first}: "
            f"got {int(actual_bytes[first]):#04x}, expected {int(expected_bytes[first]):#04x}"
        )


@dataclass(frozen=True)
class RowError:
    """Per row of the last dim, ``|error| <= factor * largest |expected value of the row|``.

    NaN and infinities must be where they were recorded. An lse ([heads, tokens]) has one number per
    row, so it is compared per element.
    """

    factor: float
    per_element: bool = False

    def mismatch(self, actual: Tensor, expected: Tensor) -> str | None:
        actual, expected = actual.double(), expected.double()
        if not torch.equal(_non_finite(actual), _non_finite(expected)):
            return "NaN or infinity in other places than recorded"
        actual, expected = (t.masked_fill(~t.isfinite(), 0.0) for t in (actual, expected))
        error, magnitude = (actual - expected).abs(), expected.abs()
        if not self.per_element:
            error, magnitude = error.amax(dim=-1), magnitude.amax(dim=-1)
        excess = error - self.factor * magnitude
        if not (excess > 0).any():
            return None
        worst = torch.unravel_index(excess.argmax(), excess.shape)
        row = tuple(int(index) for index in worst)
        return (
            f"{int((excess > 0).sum())} of {excess.numel()} rows are off; worst is {row}: error "
            f"{error[row]:.3g}, allowed {self.factor} * {magnitude[row]:.3g}"
        )


@dataclass(frozen=True)
class GoldenCall:
    """One recorded call; :meth:`bind` makes its tensors."""

    id: str
    group: str
    namespace: str
    op: str
    note: str
    mutated: tuple[str, ...]
    arguments: tuple[Mapping[str, Any], ...]

    def bind(self, device: str) -> BoundCall:
        """Fresh arguments on ``device``, as they were before the recorded call."""
        args, tensors = [], {}
        for spec in self.arguments:
            if "dtype" not in spec:
                args.append(spec["value"])
                continue
            tensor = self._initial(spec).to(device)
            tensors[spec["name"]] = tensor
            args.append(tensor if spec["permute"] is None else tensor.permute(spec["permute"]))
        return BoundCall(self, tuple(args), tensors, {k: t.clone() for k, t in tensors.items()})

    def expected(self, name: str) -> Tensor:
        """The recorded bytes of a mutated tensor after the call, before ``permute``, on the CPU."""
        spec = next(spec for spec in self.arguments if spec["name"] == name)
        return _tensor(_arrays(self.group)[f"{self.id}/{name}.after"], spec)

    def rule(self, name: str) -> ByteForByte | RowError:
        """How a mutated tensor is compared."""
        if self.group != "attention":
            return ByteForByte()
        if name == "output_lse":
            return RowError(_ROW_FACTORS["float32"], per_element=True)
        return RowError(self._row_factor(name))

    def _row_factor(self, name: str) -> float:
        dtypes = {spec["name"]: spec["dtype"] for spec in self.arguments if "dtype" in spec}
        if dtypes[name] == "float32" and dtypes.get("key_cache") == "uint8":
            return _FP32_QUERY_OVER_FP8_FACTOR
        return _ROW_FACTORS[dtypes[name]]

    def _initial(self, spec: Mapping[str, Any]) -> Tensor:
        if spec["poison"]:
            dtype = getattr(torch, spec["dtype"])
            size_bytes = int(np.prod(spec["shape"], dtype=np.int64)) * dtype.itemsize
            return _tensor(np.full(size_bytes, _POISON_BYTE, np.uint8), spec)
        return _tensor(_arrays(self.group)[f"{self.id}/{spec['name']}"], spec)


@dataclass(frozen=True)
class BoundCall:
    """The arguments of one call on one device, and what they were before."""

    call: GoldenCall
    args: tuple[Any, ...]  # in schema order, for passing by position
    tensors: Mapping[str, Tensor]  # by name, before permute
    initial: Mapping[str, Tensor]

    def mismatches(self) -> list[str]:
        """After the call: one line per tensor that is not what it should be; empty if all are."""
        found = []
        for name, tensor in self.tensors.items():
            if name in self.call.mutated:
                result = self.call.rule(name).mismatch(tensor.cpu(), self.call.expected(name))
            elif name in _SCRATCH:
                continue
            else:
                result = ByteForByte().mismatch(tensor.cpu(), self.initial[name].cpu())
                result = result and f"changed but is not mutated: {result}"
            if result is not None:
                found.append(f"{self.call.id}: {name}: {result}")
        return found


@cache
def load_calls() -> tuple[GoldenCall, ...]:
    """Every recorded call, in the order of recording."""
    return tuple(
        GoldenCall(
            id=entry["id"],
            group=group,
            namespace=entry["namespace"],
            op=entry["op"],
            note=entry["note"],
            mutated=tuple(entry["mutated"]),
            arguments=tuple(entry["args"]),
        )
        for group in GROUPS
        for entry in json.loads(bytes(_arrays(group)["index"]))
    )


def as_bytes(tensor: Tensor) -> Tensor:
    """uint8 [size in bytes]: the bytes of a tensor in C order."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@cache
def _arrays(group: str) -> Mapping[str, np.ndarray]:
    """The arrays of a group by name; each is read from the file when it is asked for."""
    return np.load(GOLDEN_FOLDER / f"vllm023-{group}.npz")


def _tensor(raw_bytes: np.ndarray, spec: Mapping[str, Any]) -> Tensor:
    dtype = getattr(torch, spec["dtype"])
    return torch.from_numpy(raw_bytes.copy()).view(dtype).reshape(spec["shape"])


def _non_finite(tensor: Tensor) -> Tensor:
    """Which elements are NaN (2), +infinity (1) or -infinity (-1); 0 for numbers."""
    return tensor.isnan() * 2 + tensor.isposinf() * 1 - tensor.isneginf() * 1
