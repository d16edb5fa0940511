"""The command line: reads arguments, runs what they ask for, prints, returns the exit status."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from .checks import audit
from .diff import diff, diff_json, diff_text
from .facts import BUILDS, glibc_of_tag
from .headers import UnreadableSource
from .inputs import Artifact, find_artifacts
from .model import LibraryReport, overall
from .output_files import CannotWrite, write_text
from .policy import Policy
from .python_api import parse_python
from .ratchet import BadBaseline, counts_of_libraries, counts_of_source, run_ratchet
from .report_github import as_annotations, source_annotations
from .report_json import SCHEMA, document, problem_document, source_document
from .report_markdown import as_markdown, source_markdown
from .report_sarif import as_sarif, source_sarif
from .report_text import as_text, one_line, source_text
from .shims import parse_torch_version
from .source_mode import SourceReport, read_sources
from .verify import Attempt, CannotVerify, default_python, parse_cell, verify

_DESCRIPTION = """\
On which torch, Python, CUDA and libc will a compiled torch extension load, and what stands in the
way elsewhere?
"""

_EPILOG = """\
exit status: 0 clean, 1 the policy is broken (with --baseline: a count rose; with --diff: it got
worse; with --verify: also a wrong prediction), 2 something could not be read (wins over 1)

policy: no at::, c10::, caffe2:: or torch:: symbol, undefined or exported, outside torch::stable and
torch::headeronly; no shim newer than the floor (a weak one is a note) or unknown; no Python C-API
outside the limited API; no newer C or C++ runtime than the wheel's tag; no compiled-in leak;
DT_NEEDED only libtorch_cpu.so and the C and C++ runtime, for _C_cuda.* also libtorch.so, with
--build and --driver also what those torches and machines bring. What --json prints is described by
--json-schema, and all of this in docs/gate_your_extension.md.
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


def _input(text: str) -> Path:
    if not text:
        # Path("") is the current folder, and "$WHEEL" may well be empty.
        raise ValueError("an INPUT is empty")
    return Path(text)


def _platform(text: str) -> str:
    if glibc_of_tag(text) is None:
        raise ValueError(f"{text!r} is no manylinux tag such as manylinux_2_28")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvops-audit",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        type=_argument(_input),
        metavar="INPUT",
        help="wheel, shared library, directory, or name of an installed package",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--source",
        action="store_true",
        help="INPUTs are sources or build folders: which units include unstable headers",
    )
    mode.add_argument(
        "--diff",
        action="store_true",
        help="what changed from the first of two INPUTs to the second",
    )
    mode.add_argument(
        "--verify",
        action="append",
        type=_argument(parse_cell),
        metavar="TORCH",
        help="load everything beside a real torch, such as 2.10 or 2.13+cpu; repeatable",
    )
    mode.add_argument("--json-schema", action="store_true", help="print the schema of --json")
    _add_policy(parser.add_argument_group("what is promised"))
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print one JSON document")
    output.add_argument("--all", action="store_true", help="list every finding in the text")
    output.add_argument("--github", action="store_true", help="print annotations for GitHub too")
    output.add_argument("--sarif", type=Path, metavar="FILE", help="write SARIF there too")
    output.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="append a summary there, for example to $GITHUB_STEP_SUMMARY",
    )
    output.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="fail only where a count is above the one in FILE; rewrite FILE when it falls",
    )
    return parser


def _add_policy(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--floor",
        type=_argument(parse_torch_version),
        metavar="VERSION",
        default=Policy.torch_floor,
        help="oldest torch that must load the libraries (default 2.10)",
    )
    group.add_argument(
        "--python",
        type=_argument(parse_python),
        metavar="VERSION",
        help="oldest Python (default: the wheel's tag, else 3.10); with --verify the one to "
        "load with (default: this one)",
    )
    group.add_argument(
        "--platform",
        type=_argument(_platform),
        metavar="TAG",
        help="hold the C and C++ runtime against TAG, such as manylinux_2_28 (default: the tag in "
        "the wheel's name)",
    )
    group.add_argument(
        "--build",
        action="append",
        choices=BUILDS,
        help="a build of torch that is promised; repeatable (default: all)",
    )
    group.add_argument(
        "--driver", action="store_true", help="only machines with NVIDIA's driver are promised"
    )
    group.add_argument(
        "--allow-needed",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a further library allowed in DT_NEEDED, such as 'libfoo.so.*'; repeatable",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments ask for; the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Symbols and file names need not exist in the terminal's encoding.
        sys.stdout.reconfigure(errors="backslashreplace")
    if args.json_schema:
        print(SCHEMA.read_text(encoding="utf-8"), end="")
        return 0
    if not args.inputs:
        parser.error("the following arguments are required: INPUT")
    if args.diff and len(args.inputs) != 2:
        parser.error("--diff compares two INPUTs")
    try:
        if args.source:
            return _run_source(args)
        return _run_diff(args) if args.diff else _run_audit(args)
    except (UnreadableSource, BadBaseline, CannotVerify, CannotWrite) as error:
        return _give_up(args, str(error))
    except BrokenPipeError:
        # Whoever reads the output has gone; the interpreter must not complain when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def _give_up(args: argparse.Namespace, problem: str) -> int:
    """Say why there is no answer, in the form that was asked for."""
    print(
        json.dumps(problem_document(problem)) if args.json else f"unreadable: {one_line(problem)}"
    )
    return 2


def _policy(args: argparse.Namespace) -> Policy:
    return Policy(
        torch_floor=args.floor,
        python=None if args.verify else args.python,
        extra_needed=tuple(args.allow_needed),
        builds=tuple(args.build or BUILDS),
        driver=args.driver,
        platform=args.platform,
    )


def _artifacts(paths: Sequence[Path]) -> list[Artifact]:
    return [artifact for path in paths for artifact in find_artifacts(path)]


def _run_audit(args: argparse.Namespace) -> int:
    policy = _policy(args)
    artifacts = _artifacts(args.inputs)
    reports = audit(artifacts, policy)
    status = overall(reports).exit_code
    lines: list[str] = []
    if args.baseline and status != 2:
        status, lines = run_ratchet(args.baseline, counts_of_libraries(reports))
    attempts = _verified(args, artifacts, reports) if args.verify else []
    if any(attempt.agrees is False for attempt in attempts):
        status = max(status, 1)
    _write_files(args, as_sarif, as_markdown, reports)
    if args.json:
        print(json.dumps(document(reports, policy, status, attempts), indent=2))
        return status
    if args.github:
        _print(as_annotations(reports))
    _print([*map(str, attempts), *lines, *as_text(reports, args.all)])
    return status


def _verified(
    args: argparse.Namespace, artifacts: list[Artifact], reports: list[LibraryReport]
) -> list[Attempt]:
    python = str(args.python) if args.python else default_python()
    return list(verify(artifacts, reports, args.verify, python))


def _run_diff(args: argparse.Namespace) -> int:
    old, new = (audit(_artifacts([path]), _policy(args)) for path in args.inputs)
    unreadable = [report for report in (*old, *new) if report.problem is not None]
    if unreadable:
        return _give_up(args, "; ".join(f"{r.label}: {r.problem}" for r in unreadable))
    diffs = diff(old, new)
    if args.json:
        print(json.dumps(diff_json(diffs), indent=2))
    else:
        _print(diff_text(diffs, args.all))
    return 1 if any(item.is_worse for item in diffs) else 0


def _run_source(args: argparse.Namespace) -> int:
    report: SourceReport = read_sources(args.inputs)
    status, lines = (1 if report.unstable else 0), []
    if args.baseline:
        status, lines = run_ratchet(args.baseline, counts_of_source(report))
    _write_files(args, source_sarif, source_markdown, report)
    if args.json:
        print(json.dumps(source_document(report, status), indent=2))
        return status
    if args.github:
        _print(source_annotations(report.includes))
    _print([*lines, *source_text(report)])
    return status


def _write_files(
    args: argparse.Namespace,
    sarif: Callable[[_T], str],
    markdown: Callable[[_T], str],
    found: _T,
) -> None:
    if args.sarif:
        write_text(args.sarif, sarif(found))
    if args.markdown:
        write_text(args.markdown, markdown(found), append=True)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
