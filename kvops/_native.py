"""Loads the native libraries and speaks to their plain C functions.

`_C.abi3.so` holds every schema and the CPU kernels; `_C_cuda.abi3.so` the CUDA kernels, loaded
only where torch was built with CUDA. Loading touches no GPU and no driver.
"""

from __future__ import annotations

import ctypes
import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

MINIMUM_TORCH = (2, 10)
FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Operator:
    """One operator: its name and the namespace in which a peer (vLLM, SGLang) has it."""

    name: str
    peer_namespace: str


@dataclass(frozen=True)
class Libraries:
    """The loaded libraries; `cuda_reason` says in one sentence why `cuda` is None."""

    cpu: ctypes.CDLL
    cuda: ctypes.CDLL | None
    cuda_reason: str | None


def load() -> Libraries:
    """Load both libraries, or raise ImportError with one sentence that says what is wrong."""
    _check_torch()
    cpu = _open("_C.abi3.so")
    if isinstance(cpu, str):
        raise ImportError(f"kvops: {cpu}")
    _declare_cpu_functions(cpu)
    cuda, reason = _load_cuda(cpu)
    return Libraries(cpu, cuda, reason)


def operators(cpu: ctypes.CDLL) -> list[Operator]:
    """Every operator that `_C` defines, in the order of registration/schemas.h."""
    found: list[Operator] = []
    name, namespace = ctypes.c_char_p(), ctypes.c_char_p()
    while cpu.kvops_operator(len(found), ctypes.byref(name), ctypes.byref(namespace)):
        found.append(Operator((name.value or b"").decode(), (namespace.value or b"").decode()))
    return found


def torch_kind() -> str:
    """What this torch was built for: "cuda", "rocm", "xpu" or "cpu"."""
    if torch.version.hip:
        return "rocm"
    if torch.version.cuda:
        return "cuda"
    return "xpu" if getattr(torch.version, "xpu", None) else "cpu"


def _check_torch() -> None:
    version = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
    if version < MINIMUM_TORCH:
        raise ImportError(
            f"kvops needs torch >= 2.10, and this is torch {torch.__version__}: upgrade torch"
            " (the stable ABI that kvops is built on starts there)"
        )


def _open(file_name: str) -> ctypes.CDLL | str:
    """The library, or one sentence why not. The loader's own text would be a raw symbol."""
    path = FOLDER / file_name
    if not path.exists():
        return f"{file_name} is missing from {FOLDER}: the installation is incomplete, reinstall it"
    damaged = f"{file_name} is damaged or made for another platform: reinstall kvops"
    if not _is_whole_elf(path):
        return damaged
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        text = str(error)
    if "undefined symbol" in text or "cannot open shared object" in text:
        return (
            f"{file_name} does not fit the torch {torch.__version__} that is installed:"
            " reinstall kvops and torch"
        )
    return damaged


def _is_whole_elf(path: Path) -> bool:
    """Whether a 64-bit ELF file reaches to its end: the loader would crash on a cut one."""
    with path.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":
        return False
    # Linkers put the section headers last: e_shoff + e_shnum * e_shentsize is the file's size.
    (offset,) = struct.unpack_from("<Q", header, 0x28)
    entry_bytes, entries = struct.unpack_from("<HH", header, 0x3A)
    return path.stat().st_size >= offset + entries * entry_bytes


def _load_cuda(cpu: ctypes.CDLL) -> tuple[ctypes.CDLL | None, str | None]:
    kind = torch_kind()
    if kind in ("rocm", "xpu"):
        reason = f"kvops has no {kind.upper()} kernels yet: only CPU tensors work on this torch"
        warnings.warn(reason, RuntimeWarning, stacklevel=2)
        return None, reason
    if kind == "cpu":
        return None, f"torch {torch.__version__} was built without CUDA"
    if not (FOLDER / "_C_cuda.abi3.so").exists():
        return None, "this kvops was built without CUDA"
    cuda = _open("_C_cuda.abi3.so")
    if isinstance(cuda, str):
        warnings.warn(f"kvops: {cuda}; only CPU tensors work", RuntimeWarning, stacklevel=2)
        return None, cuda
    for name in ("kvops_cuda_version", "kvops_cuda_build", "kvops_cuda_driver_problem"):
        getattr(cuda, name).restype = ctypes.c_char_p
    if cuda.kvops_cuda_version() != cpu.kvops_version():
        return None, "_C_cuda.abi3.so and _C.abi3.so are of different builds: reinstall kvops"
    cuda.kvops_cuda_attach.argtypes = [ctypes.c_void_p]
    cuda.kvops_cuda_attach.restype = None
    cuda.kvops_cuda_claim_peer_name.argtypes = [ctypes.c_char_p]
    cuda.kvops_cuda_claim_device_query.argtypes = [ctypes.c_char_p]
    cuda.kvops_cuda_skipped.argtypes = [ctypes.c_int, ctypes.c_void_p]
    cuda.kvops_cuda_clear_skipped.argtypes = [ctypes.c_int]
    cuda.kvops_cuda_attach(cpu.kvops_host_api())
    return cuda, None


def _declare_cpu_functions(cpu: ctypes.CDLL) -> None:
    for name in ("kvops_version", "kvops_build", "kvops_simd"):
        getattr(cpu, name).restype = ctypes.c_char_p
    cpu.kvops_operator.argtypes = [
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.POINTER(ctypes.c_char_p),
    ]
    cpu.kvops_set_checked.argtypes = [ctypes.c_int]
    cpu.kvops_set_checked.restype = None
    cpu.kvops_host_api.restype = ctypes.c_void_p
    cpu.kvops_claim_peer_name.argtypes = [ctypes.c_char_p]


libraries = load()
OPERATORS = operators(libraries.cpu)
# Without tensors, without a CPU kernel, and only under vLLM's names.
DEVICE_QUERIES = [
    Operator(name, "_C_cuda_utils")
    for name in ("get_device_attribute", "get_max_shared_memory_per_block_device_attribute")
    if libraries.cuda is not None
]
