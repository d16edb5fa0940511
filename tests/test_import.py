"""`import kvops`: what it says when something is wrong, and what it must not do."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from pathlib import Path

import pytest

from subprocesses import KVOPS_PARENT, run_python

FAKE_TORCH = """
__version__ = "{version}"
class version:
    cuda = None
    hip = None
    xpu = None
"""


@pytest.fixture
def copied_package(tmp_path: Path) -> Path:
    """A copy of the installed package that a test may damage."""
    source = Path(KVOPS_PARENT) / "kvops"
    shutil.copytree(source, tmp_path / "kvops", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def import_error(stderr: str) -> str:
    """The last line of a traceback: the whole message must be in it, and it must be one line."""
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: "), stderr
    return last


def test_torch_too_old(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(FAKE_TORCH.format(version="2.9.1+cu128"))
    done = run_python("import kvops", path=(tmp_path,))
    assert "kvops needs torch >= 2.10, and this is torch 2.9.1+cu128" in import_error(done.stderr)


def test_library_missing(copied_package: Path) -> None:
    (copied_package / "kvops" / "_C.abi3.so").unlink()
    done = run_python("import kvops", path=(copied_package,))
    assert "_C.abi3.so is missing" in import_error(done.stderr)


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, None], ids=["empty", "text", "cut"])
def test_library_damaged(copied_package: Path, content: bytes | None) -> None:
    library = copied_package / "kvops" / "_C.abi3.so"
    damaged = library.read_bytes()[:2000] if content is None else content
    library.unlink()
    library.write_bytes(damaged)
    done = run_python("import kvops", path=(copied_package,))
    assert "_C.abi3.so is damaged" in import_error(done.stderr)


def test_library_of_another_torch(copied_package: Path) -> None:
    library = copied_package / "kvops" / "_C.abi3.so"
    library.unlink()
    code = "void torch_has_no_such_shim(void); void f(void) { torch_has_no_such_shim(); }"
    command = ["gcc", "-shared", "-fPIC", "-Wl,-z,now", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=code, text=True, check=True)
    done = run_python("import kvops", path=(copied_package,))
    message = import_error(done.stderr)
    assert "_C.abi3.so does not fit the torch" in message
    assert "torch_has_no_such_shim" not in done.stderr


@pytest.mark.parametrize("kind", ["hip", "xpu"])
def test_other_accelerators(kind: str) -> None:
    done = run_python(
        f"import torch; torch.version.cuda = None; torch.version.{kind} = '7.0'\n"
        "import kvops; print(kvops.info()['_C_cuda'])"
    )
    name = "ROCM" if kind == "hip" else "XPU"
    assert done.returncode == 0, done.stderr
    assert f"kvops has no {name} kernels yet: only CPU tensors work" in done.stderr
    assert f"not loaded: kvops has no {name} kernels yet" in done.stdout


def test_cuda_is_left_alone() -> None:
    done = run_python(
        "import torch, kvops\n"
        "print(torch.cuda.is_initialized())\n"
        "import os\n"
        "held = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')\n"
        "        if os.path.exists(f'/proc/self/fd/{fd}')]\n"
        "print([name for name in held if 'nvidia' in name])"
    )
    assert done.stdout.split() == ["False", "[]"], done.stderr


def test_no_visible_device() -> None:
    done = run_python(
        "import torch, kvops\n"
        "a, out = torch.ones(1, 1, 8), torch.zeros(1, 1, 16)\n"
        "kvops.concat_mla_q(a, a, out); print(int(out.sum()))",
        CUDA_VISIBLE_DEVICES="",
    )
    assert done.stdout.strip() == "16", done.stderr


def test_silent() -> None:
    """With nothing wrong, importing prints and warns nothing."""
    done = run_python("import kvops")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dynamo_is_not_imported() -> None:
    done = run_python("import sys, kvops; print('torch._dynamo' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_simd_level_by_hand(level: str) -> None:
    """A level the machine lacks is never used; a lower one is what was asked for."""
    best = run_python("import kvops; print(kvops.info()['simd'])").stdout.strip()
    chosen = run_python(
        "import kvops; print(kvops.info()['simd'])", KVOPS_SIMD=level
    ).stdout.strip()
    levels = ["baseline", "avx2", "avx512"]
    assert chosen == (level if levels.index(level) <= levels.index(best) else best)


def test_info_command() -> None:
    done = run_python(
        "import runpy, sys; sys.argv = ['kvops', 'info']\n"
        "runpy.run_module('kvops', None, '__main__')"
    )
    assert done.returncode == 0, done.stderr
    for fact in (
        "kvops:",
        "torch:",
        "_C:",
        "_C_cuda:",
        "cuda driver:",
        "simd:",
        "operators on CPU:",
    ):
        assert fact in done.stdout


def test_info_says_how_the_last_swap_went() -> None:
    code = (
        "import kvops, torch\n"
        "before = kvops.info()['last swap path']\n"
        "blocks = torch.zeros(2, 8)\n"
        "kvops.swap_blocks(blocks, blocks, 32, torch.tensor([[0, 1]]))\n"
        "print(before, kvops.info()['last swap path'])"
    )
    assert run_python(code).stdout.strip() == "none yet host"


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ("CUDA 12.9, 7.5 9.0", "CUDA 12.9, 7.5 9.0"),
        ("CUDA 13.0, 9.0", "CUDA 13.0, 9.0 (for development: needs driver R580 or later)"),
    ],
)
def test_info_says_what_is_a_development_build(build: str, said: str) -> None:
    # `kvops.info` is the function.
    assert importlib.import_module("kvops.info")._cuda_build(build) == said
