"""Compilers, GPU architectures and flags; reads the environment, writes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass

# What a release is built with: their static runtime accepts every driver since R525 (one of 13.x
# only those since R580), and both know all RELEASE_ARCHS.
RELEASE_CUDA = ("12.8", "12.9")
RELEASE_ARCHS = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0+PTX")
DEFAULT_ARCHS = ("9.0+PTX",)


class ToolchainError(RuntimeError):
    """The build cannot go on; the message says why in one sentence."""


@dataclass(frozen=True)
class CudaToolchain:
    """nvcc, its version ("13.0"), its library folders, the architectures ("9.0", "12.0+PTX")."""

    nvcc: str
    version: str
    library_folders: tuple[str, ...]
    archs: tuple[str, ...]

    def gencode_flags(self) -> list[str]:
        """One -gencode per SASS target, one more per "+PTX"."""
        flags = []
        for arch in self.archs:
            number = arch.removesuffix("+PTX").replace(".", "")
            flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
            if arch.endswith("+PTX"):
                flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
        return flags


def cxx_compiler() -> str:
    """The C++ compiler: $CXX, else g++, else c++."""
    if "musl" in (sysconfig.get_config_var("SOABI") or ""):
        raise ToolchainError(
            "kvops cannot be built for musl libc: torch, which every kvops library binds to, and"
            " NVIDIA's static CUDA runtime exist for glibc only"
        )
    for candidate in (os.environ.get("CXX"), "g++", "c++"):
        if candidate and shutil.which(candidate.split()[0]):
            return candidate
    raise ToolchainError("kvops needs a C++20 compiler: install g++ or set CXX")


def cuda_toolchain() -> CudaToolchain | None:
    """nvcc if it is to be used: KVOPS_CUDA=0 never, =1 it must be there, unset: if found."""
    wish = os.environ.get("KVOPS_CUDA", "")
    if wish not in ("", "0", "1"):
        raise ToolchainError(f"KVOPS_CUDA must be 0, 1 or unset, got {wish!r}")
    if wish == "0":
        return None
    nvcc = _find_nvcc()
    if nvcc is None:
        if wish == "1":
            raise ToolchainError("KVOPS_CUDA=1, but there is no nvcc on PATH or under CUDA_HOME")
        return None
    printed = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"release (\d+\.\d+)", printed.stdout)
    if version is None:
        raise ToolchainError(f"{nvcc} --version does not name a release")
    if os.environ.get("KVOPS_RELEASE") == "1" and version.group(1) not in RELEASE_CUDA:
        raise ToolchainError(
            f"KVOPS_RELEASE=1: a release is built with CUDA {' or '.join(RELEASE_CUDA)}, whose"
            f" runtime accepts the drivers of CUDA 12 and 13; {nvcc} is CUDA {version.group(1)}"
        )
    return CudaToolchain(nvcc, version.group(1), _library_folders(nvcc), _architectures())


def _library_folders(nvcc: str) -> tuple[str, ...]:
    """Where nvcc's own libcudart_static.a is: nvcc knows, whatever the toolkit's layout."""
    command = [nvcc, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull]
    printed = subprocess.run(command, capture_output=True, text=True).stderr
    line = re.search(r"LIBRARIES=(.*)", printed)
    return tuple(re.findall(r'-L([^" ]+)', line.group(1))) if line else ()


def _find_nvcc() -> str | None:
    for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if root and os.access(os.path.join(root, "bin", "nvcc"), os.X_OK):
            return os.path.join(root, "bin", "nvcc")
    found = shutil.which("nvcc")
    if found is None and os.access("/usr/local/cuda/bin/nvcc", os.X_OK):
        found = "/usr/local/cuda/bin/nvcc"
    return found


def _architectures() -> tuple[str, ...]:
    wish = os.environ.get("KVOPS_CUDA_ARCHS", "")
    if wish == "all":
        return RELEASE_ARCHS
    if wish:
        archs = tuple(part.strip() for part in wish.split(";") if part.strip())
        for arch in archs:
            if not re.fullmatch(r"\d+\.\d+a?(\+PTX)?", arch):
                raise ToolchainError(
                    "KVOPS_CUDA_ARCHS must be `all` or a semicolon list such as"
                    f" 9.0;10.0+PTX (suffix `a` allowed), got {wish!r}"
                )
        return archs
    return _gpus_present() or DEFAULT_ARCHS


def _gpus_present() -> tuple[str, ...]:
    try:
        printed = subprocess.run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    return tuple(sorted(set(re.findall(r"^\d+\.\d+$", printed, re.MULTILINE))))
