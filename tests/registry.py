"""The cases of every operator: tests/cases/<operator>.py, collected here.

A case file defines `CASE`, an `OpCase`. Generic tests (opcheck, torch.compile, every dtype, refused
calls, hostile indices, threads, ...) run over all of them; what only one operator can show is in
tests/<capability>/test_<operator>.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tensor_bytes import byte_view

# Arguments by schema name, in schema order; trailing ones with defaults may be left out. Entries of
# a list of tensors are arguments of their own, "name[0]", "name[1]", ...; an empty list is "name".
Args = dict[str, Any]

# What `hostile` says of indices into memory whose size nobody knows: only negative values are bad.
UNBOUNDED = 2**63


def entry_name(name: str) -> str:
    """The schema's name of an argument, which may be an entry of a list."""
    return name.split("[")[0]


def passed(args: Args) -> Args:
    """What an operator gets: entries put into lists, without memory behind address tables."""
    found: Args = {}
    for name, value in args.items():
        if name.startswith("_"):
            continue
        if name.endswith("]"):
            found.setdefault(entry_name(name), []).append(value)
        else:
            found[name] = value
    return found


Compare = Callable[[str, Tensor, Tensor, Args], None]


def assert_same_bytes(name: str, actual: Tensor, expected: Tensor, args: Args) -> None:
    """Equal dtype, shape and bytes; NaN equals itself, -0 differs from 0."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, name
    different = (byte_view(actual) != byte_view(expected)).nonzero()
    assert len(different) == 0, (
        f"{name}: {len(different)} bytes differ, the first is byte {int(different[0, -1])} of "
        f"element {different[0, :-1].tolist()}"
    )


@dataclass(frozen=True)
class Sample:
    """One valid call. `make` builds fresh arguments on a device from a seeded CPU generator.

    Outputs are to be poisoned (NaN, or 0x7F bytes), so that an unwritten element shows. Storages
    are copied whole by the generic tests: keep them below 64 MiB.
    """

    id: str
    make: Callable[[torch.device, torch.Generator], Args]


@dataclass(frozen=True)
class Refusal:
    """A call that must raise RuntimeError before a byte is written.

    `change` edits the arguments of the sample `sample`; `match` is a regular expression that the
    message must contain after "kvops::<operator>: ".
    """

    id: str
    change: Callable[[Args], None]
    match: str
    sample: str | None = None  # None: the first


@dataclass(frozen=True, eq=False)
class OpCase:
    """Everything the generic tests need to know about an operator."""

    name: str
    samples: tuple[Sample, ...]
    refusals: tuple[Refusal, ...]
    # Arguments the operator writes (marked ! in the schema), all compared unless in `scratch`.
    outputs: tuple[str, ...]
    scratch: tuple[str, ...] = ()
    compare: Compare = assert_same_bytes
    # Index tensors whose values the operator must not trust: argument -> the lowest value that is
    # too large, for the given arguments. (-1 is valid padding for slots; see `padding`.)
    hostile: Mapping[str, Callable[[Args], int]] = field(default_factory=dict)
    # Index arguments for which -1 means "nothing here" and is no error in checked mode either.
    padding: tuple[str, ...] = ()
    # For operators that get tables of addresses: table argument -> key in Args of the tensor that
    # its addresses point into. Such a key starts with "_" and is not passed to the operator, but
    # the tensor may be in `outputs`, and copies of the arguments get tables for its copy.
    addresses: Mapping[str, str] = field(default_factory=dict)

    def sample(self, sample_id: str | None) -> Sample:
        if sample_id is None:
            return self.samples[0]
        return next(sample for sample in self.samples if sample.id == sample_id)


def all_cases() -> dict[str, OpCase]:
    """Every case by operator name."""
    folder = Path(__file__).parent / "cases"
    found = {}
    for module in pkgutil.iter_modules([str(folder)]):
        case = importlib.import_module(f"cases.{module.name}").CASE
        assert case.name == module.name, f"tests/cases/{module.name}.py defines {case.name}"
        found[case.name] = case
    return found
