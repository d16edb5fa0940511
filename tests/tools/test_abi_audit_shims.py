"""The table of shims agrees with what torch itself exports and declares."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if sys.version_info < (3, 11):
    pytest.skip("torch-abi-audit needs Python 3.11", allow_module_level=True)

from abi_audit.elf import read_library
from abi_audit.shims import NEWEST_TORCH, is_shim, parse_torch_version, shim_since

TORCH = Path(torch.__file__).parent
TORCH_VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])

needs_known_torch = pytest.mark.skipif(
    NEWEST_TORCH[:2] < TORCH_VERSION, reason=f"torch {torch.__version__} is newer than the table"
)

# Exported by libtorch_cuda.so alone, so that no CPU build shows them.
CUDA_ONLY = (
    "aoti_torch_create_cuda_guard",
    "aoti_torch_create_cuda_stream_guard",
    "aoti_torch_delete_cuda_guard",
    "aoti_torch_delete_cuda_stream_guard",
    "aoti_torch_get_current_cuda_stream",
    "torch_c10_cuda_check_msg",
    "torch_c10_cuda_free_error_msg",
    "torch_cuda_stream_synchronize",
    "torch_get_cuda_stream_from_pool",
    "torch_get_current_cuda_blas_handle",
    "torch_set_current_cuda_stream",
)


@pytest.mark.parametrize("name", CUDA_ONLY)
def test_cuda_shims_are_known(name):
    since = shim_since(name)
    assert since is not None
    assert since <= (2, 10, 0)


@needs_known_torch
@pytest.mark.parametrize("library", ["libtorch_cpu.so", "libtorch_cuda.so"])
def test_every_exported_shim_is_known_and_not_newer(library):
    path = TORCH / "lib" / library
    if not path.exists():
        assert torch.version.cuda is None
        pytest.skip("this torch is built without CUDA")
    with path.open("rb") as stream:
        exported = [s.name for s in read_library(stream).exported if is_shim(s.name)]
    # torch_c_dynamo_* was an entry point of torch's own Python module, never a shim.
    shims = [name for name in exported if not name.startswith("torch_c_dynamo_")]
    assert len(shims) > 100
    known = {name: shim_since(name) for name in shims}
    assert {n: v for n, v in known.items() if v is None or v[:2] > TORCH_VERSION} == {}


@needs_known_torch
def test_versions_agree_with_the_gates_in_torchs_header():
    header = TORCH / "include/torch/csrc/stable/c/shim.h"
    gated = dict(_gated_functions(header.read_text()))
    assert len(gated) > 20
    assert {name: shim_since(name) for name in gated} == gated


def _gated_functions(header: str) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """The functions of shim.h with the release that its ``#if`` names."""
    gates: list[tuple[int, int, int] | None] = []
    gate_line = re.compile(r"#if TORCH_FEATURE_VERSION >= TORCH_VERSION_(\d+)_(\d+)_(\d+)")
    for line in header.splitlines():
        if line.startswith("#if"):
            match = gate_line.match(line)
            gates.append(tuple(map(int, match.groups())) if match else None)
        elif line.startswith("#endif"):
            gates.pop()
        versions = [gate for gate in gates if gate is not None]
        declared = re.match(r"(?:AOTI_TORCH_EXPORT .*?)?\b((?:aoti_)?torch_\w+)\(", line)
        if declared and versions:
            yield declared[1], max(versions)


@pytest.mark.parametrize(
    ("text", "version"), [("2.10", (2, 10, 0)), ("2.9.1", (2, 9, 1)), ("3.0", (3, 0, 0))]
)
def test_parse_torch_version(text, version):
    assert parse_torch_version(text) == version


@pytest.mark.parametrize("text", ["", "2", "2.x", "2.10.0.1", "2.10+cpu", "-2.1"])
def test_parse_torch_version_refuses(text):
    with pytest.raises(ValueError, match="not a torch version"):
        parse_torch_version(text)
