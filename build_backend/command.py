"""The setuptools command that builds both libraries with ninja."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

from ninja_file import ROOT, write_ninja_file
from toolchain import ToolchainError, cuda_toolchain, cxx_compiler
from torch_headers import HeadersError, find_torch_headers

BUILD_FOLDER = ROOT / "build" / "native"


def wheel_options() -> dict[str, dict[str, str]]:
    """One wheel for every Python; a free-threaded one, which has no abi3, builds its own."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return {}
    return {"bdist_wheel": {"py_limited_api": "cp310"}}


def native_extensions() -> list[Extension]:
    """`kvops._C`, and `kvops._C_cuda` where CUDA code is to be built; sources are in ninja_file."""
    try:
        names = ["_C"] + (["_C_cuda"] if cuda_toolchain() else [])
    except ToolchainError as error:
        raise SystemExit(f"kvops: {error}") from None
    return [Extension(f"kvops.{name}", sources=[]) for name in names]


class BuildNative(build_ext):
    """Compile everything once, then put each library where setuptools wants its extension."""

    def run(self) -> None:
        try:
            headers = find_torch_headers()
            cuda = cuda_toolchain()
            cxx = cxx_compiler()
        except (HeadersError, ToolchainError) as error:
            raise SystemExit(f"kvops: {error}") from None
        print(f"kvops: headers of torch {headers.version} from {headers.origin}")
        print(
            f"kvops: CUDA {cuda.version} for {', '.join(cuda.archs)}" if cuda else "kvops: no CUDA"
        )
        version = self.distribution.get_version()
        libraries = write_ninja_file(BUILD_FOLDER, cxx, headers, cuda, version)
        command = [*_ninja(), "-C", str(BUILD_FOLDER)]
        if os.environ.get("MAX_JOBS"):
            command += ["-j", os.environ["MAX_JOBS"]]
        if subprocess.run([*command, *libraries]).returncode:
            raise SystemExit("kvops: the native build failed; the compiler's message is above")
        super().run()

    def get_ext_filename(self, fullname: str) -> str:
        """The same name on every Python: free-threaded ones have no abi3 suffix of their own.

        The libraries use no Python C API; kvops/_native.py opens them by this name.
        """
        return str(Path(*fullname.split(".")).with_suffix(".abi3.so"))

    def build_extension(self, ext: Extension) -> None:
        """Called by setuptools once per extension, after `run` has compiled."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        built = BUILD_FOLDER / f"{ext.name.rsplit('.', 1)[1]}.abi3.so"
        # A fresh inode: a process that has the old library mapped must not see it change.
        target.unlink(missing_ok=True)
        shutil.copy2(built, target)


def _ninja() -> list[str]:
    found = shutil.which("ninja")
    return [found] if found else [sys.executable, "-m", "ninja"]
