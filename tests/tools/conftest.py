"""Fixtures for the tools' tests: tiny shared libraries, compiled on demand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CompileLibrary = Callable[..., Path]


def _run_compiler(*arguments: str) -> None:
    # A compiler that is missing or fails is an error of the test run, never a skip.
    subprocess.run(["g++", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(scope="session")
def compile_library(tmp_path_factory: pytest.TempPathFactory) -> CompileLibrary:
    """Returns a function (source, name=, needed=, flags=) that makes a shared library.

    The library depends on exactly the sonames in `needed`, which are stand-ins made here, unless
    `runtime` asks for the compiler's usual libraries.
    """
    stubs = tmp_path_factory.mktemp("stubs")

    def stub(soname: str) -> str:
        path = stubs / soname
        if not path.exists():
            empty = stubs / "empty.cpp"
            empty.touch()
            _run_compiler(
                "-shared", "-nostdlib", f"-Wl,-soname,{soname}", "-o", str(path), str(empty)
            )
        return str(path)

    def compile_library(
        source: str,
        *,
        name: str = "library.so",
        needed: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        runtime: bool = False,
    ) -> Path:
        folder = tmp_path_factory.mktemp("library")
        code = folder / "source.cpp"
        code.write_text(source)
        library = folder / name
        _run_compiler(
            *["-shared", "-fPIC", "-O1", "-o", str(library), str(code)],
            *([] if runtime else ["-nostdlib"]),
            *["-Wl,--no-as-needed", *map(stub, needed), *flags],
        )
        code.unlink()
        return library

    return compile_library
