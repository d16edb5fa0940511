#!/usr/bin/env python3
"""Checks that compiled torch extensions stay on the stable ABI and load everywhere they promise.

    python tools/audit_abi.py dist/*.whl
    python tools/audit_abi.py build/ path/to/_C.abi3.so --floor 2.11 --json

Needs pyelftools and torch-abi-audit (which brings abi3info), not kvops and not torch.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

try:
    from abi_audit.checks import audit, overall
    from abi_audit.inputs import find_artifacts
    from abi_audit.policy import Policy
    from abi_audit.python_api import parse_python
    from abi_audit.report import as_json, as_text
    from abi_audit.shims import parse_torch_version
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("abi_audit"):
        raise
    print(
        f"audit_abi.py: the Python module {error.name} is missing: "
        "pip install pyelftools torch-abi-audit (Python 3.11 or later)",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

_EPILOG = """\
exit status: 0 clean, 1 the policy is broken, 2 something could not be read (wins over 1)

policy: no at::, c10::, caffe2:: or torch:: symbol, undefined or exported, outside torch::stable and
torch::headeronly; no shim newer than the floor (a weak one is a note) or unknown; no Python C-API
outside the limited API; DT_NEEDED only libtorch_cpu.so and the C and C++ runtime, for _C_cuda.*
also libtorch.so. The keys of --json are described in tools/abi_audit/report.py.
"""

_T = TypeVar("_T")


def _argument(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Let argparse show the parser's own message."""

    def parse_argument(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="audit_abi.py",
        description="Check that compiled torch extensions stay on the stable ABI.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="PATH", help="wheel, shared library or directory"
    )
    parser.add_argument(
        "--floor",
        type=_argument(parse_torch_version),
        default=Policy.torch_floor,
        metavar="VERSION",
        help="oldest torch that must load the libraries (default 2.10)",
    )
    parser.add_argument(
        "--python",
        type=_argument(parse_python),
        metavar="VERSION",
        help="oldest Python promised (default: the wheel's tag, else 3.10)",
    )
    parser.add_argument(
        "--allow-needed",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a further library allowed in DT_NEEDED, such as 'libfoo.so.*'; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Audit the inputs, print the report, return the exit status."""
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Symbols and file names need not exist in the terminal's encoding.
        sys.stdout.reconfigure(errors="backslashreplace")
    policy = Policy(
        torch_floor=args.floor, python=args.python, extra_needed=tuple(args.allow_needed)
    )
    reports = [audit(artifact, policy) for path in args.inputs for artifact in find_artifacts(path)]
    if args.json:
        print(as_json(reports, policy))
    else:
        for line in as_text(reports):
            print(line)
    return overall(reports).exit_code


if __name__ == "__main__":
    sys.exit(main())
