"""Stand-ins for libcuda.so.1 that report any version, and common/cuda/driver.cpp compiled alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

CSRC = Path(__file__).resolve().parent.parent.parent / "csrc" / "libtorch_stable"

_STAND_IN = "int cuDriverGetVersion(int *version) { *version = VERSION; return ERROR; }\n"
# All that driver.cpp takes from CUDA's headers.
_HEADER = "#pragma once\n#define CUDART_VERSION {}\n"
_EXPORTS = """
#include "common/cuda/driver.h"
extern "C" int version() { return kvops::cuda::driver_version(); }
extern "C" const char* problem() { return kvops::cuda::driver_problem().c_str(); }
"""


def stand_in(folder: Path, version: int, *, error: int = 0, symbol: bool = True) -> Path:
    """A libcuda of a driver that supports CUDA `version` (12040 is 12.4)."""
    source, library = folder / "libcuda.c", folder / f"libcuda-{version}-{error}-{symbol}.so"
    source.write_text(_STAND_IN if symbol else "int nothing_of_use;\n")
    defines = [f"-DVERSION={version}", f"-DERROR={error}"]
    subprocess.run(["cc", "-shared", "-fPIC", *defines, "-o", library, source], check=True)
    return library


def driver_check(folder: Path, runtime: int) -> Path:
    """The check of the driver, in a library as if built with CUDA `runtime`."""
    (folder / "cuda_runtime_api.h").write_text(_HEADER.format(runtime))
    exports, library = folder / "exports.cpp", folder / f"driver-{runtime}.so"
    exports.write_text(_EXPORTS)
    sources = [CSRC / "common" / "cuda" / "driver.cpp", exports]
    options = ["-std=c++20", "-shared", "-fPIC", f"-I{folder}", f"-I{CSRC}"]
    subprocess.run(["g++", *options, "-o", library, *sources, "-ldl"], check=True)
    return library
