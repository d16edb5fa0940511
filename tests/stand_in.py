"""A small library that defines some of a peer's operator names, as vLLM's or SGLang's own does.

Built with the same headers as kvops (torch >= 2.13: a second definition aborts the process).
Its CPU kernels do nothing, so that a test can tell whose kernel ran.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VLLM_NAMES = {
    "concat_mla_q": "Tensor ql_nope, Tensor q_pe, Tensor! q_out",
    "cp_gather_cache": (
        "Tensor src_cache, Tensor! dst, Tensor block_table, Tensor cu_seq_lens, int batch_size, "
        "Tensor? seq_starts"
    ),
}
SGLANG_NAMES = {
    "transfer_kv_direct": (
        "Tensor[] src_layers, Tensor[] dst_layers, Tensor src_indices, Tensor dst_indices, "
        "int page_size"
    ),
}
SOURCE = """
#include <torch/csrc/stable/library.h>
static void nothing(StableIValue*, uint64_t, uint64_t) {{}}
STABLE_TORCH_LIBRARY_FRAGMENT({namespace}, m) {{ {definitions} }}
STABLE_TORCH_LIBRARY_IMPL({namespace}, CPU, m) {{ {kernels} }}
"""


def build(
    target: Path, namespace: str = "_C_cache_ops", names: Mapping[str, str] = VLLM_NAMES
) -> Path:
    """Compile the stand-in to `target`. `names`: arguments of each operator.

    Skips the test where only an older torch is installed and no newer one can be fetched.
    """
    sys.path.insert(0, str(ROOT / "build_backend"))
    from torch_headers import HeadersError, find_torch_headers

    try:
        headers = find_torch_headers()
    except HeadersError as error:
        if os.environ.get("KVOPS_TORCH"):  # was to have them
            raise
        pytest.skip(f"no headers of a new torch: {error}")
    # An empty libtorch_cpu.so to link against, as kvops' own build does.
    stub = target.with_name("libtorch_cpu.so")
    command = ["g++", "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libtorch_cpu.so"]
    subprocess.run([*command, "-o", str(stub)], check=True)
    definitions = " ".join(f'm.def("{name}({args}) -> ()");' for name, args in names.items())
    kernels = " ".join(f'm.impl("{name}", &nothing);' for name in names)
    command = ["g++", "-std=c++20", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(target)]
    command += ["-Wl,--no-as-needed", f"-L{stub.parent}", "-l:libtorch_cpu.so"]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000ULL"]
    command += [f"-isystem{headers.include}"]
    source = SOURCE.format(namespace=namespace, definitions=definitions, kernels=kernels)
    subprocess.run(command, input=source, text=True, check=True)
    return target


def pretend_installed(site: Path, distribution: str) -> Path:
    """Make `importlib.metadata` find a distribution of that name in the folder `site`."""
    folder = site / f"{distribution.replace('-', '_')}-0.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n")
    return site
