"""Runs Python code in a fresh process: for imports, environment variables and aborts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import kvops

# Where the kvops under test lies, so that a child imports the same one.
KVOPS_PARENT = str(Path(kvops.__file__).resolve().parent.parent)


class Finished(NamedTuple):
    """How a child ended; `returncode` is negative after a signal (an abort)."""

    returncode: int
    stdout: str
    stderr: str


def run_python(
    code: str, *, path: tuple[str | Path, ...] = (), timeout: float = 240, **environ: str
) -> Finished:
    """Run `code` with `path` in front of the module search path and the given environment."""
    search = [*map(str, path), KVOPS_PARENT]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(search)} | environ
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd="/",  # `python -c` searches the current folder first: not the checkout
    )
    return Finished(done.returncode, done.stdout, done.stderr)
