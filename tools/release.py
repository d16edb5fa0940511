#!/usr/bin/env python3
"""The steps from a checkout to the files that are published; workflows and people run the same.

    python tools/release.py sdist                      # dist/kvops-VERSION.tar.gz
    python tools/release.py wheel dist/*.tar.gz        # builds from it, on this machine
    python tools/release.py repair WHEEL --out DIR     # auditwheel: the platform tag
    python tools/release.py check dist/* [--development] [--tag v1.2.3] [--record FILE]
    python tools/release.py all --development [--json FILE]   # these four; sizes and cost in FILE

In a release, `wheel` and `repair` run in the manylinux image, called by cibuildwheel. Outside of it
a wheel has this machine's tag and CUDA: --development lists what keeps it from being a release and
does not fail for it. Exit status of `check`: 0 as promised, 1 not, 2 a file could not be read.
Needs build and auditwheel (`pip install --group release`); docs/releasing.md is the guide.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abi_audit.contents import Contents

ROOT = Path(__file__).resolve().parent.parent
# What the user's torch brings, and the only libraries that may be missing from a wheel.
TORCH_LIBRARIES = ("libtorch.so", "libtorch_cpu.so")
NATIVE = ("kvops/_C.abi3.so", "kvops/_C_cuda.abi3.so")
PLATFORM = "manylinux_2_28"
MAX_BYTES = 60_000_000
# In an sdist, though git has more: what a build or the checks after it read.
IN_SDIST = ("csrc/", "build_backend/", "kvops/", "tools/abi_audit/")


@dataclass(frozen=True)
class Problem:
    """What keeps a file from being a release; `local`: it comes from the machine, not the code."""

    text: str
    local: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    sdist = steps.add_parser("sdist", help="make the source distribution")
    wheel = steps.add_parser("wheel", help="build a wheel from a source distribution")
    wheel.add_argument("sdist", type=Path)
    repair = steps.add_parser("repair", help="give a wheel its platform tag")
    repair.add_argument("wheel", type=Path)
    repair.add_argument("--plat", help=f"such as {PLATFORM}; default: what the wheel really needs")
    check = steps.add_parser("check", help="hold files against what a release promises")
    check.add_argument("files", type=Path, nargs="+")
    check.add_argument("--tag", help="the git tag that is released: v and the version")
    check.add_argument("--record", type=Path, help="write their hashes there, for sha256sum")
    everything = steps.add_parser("all", help="sdist, wheel, repair, check")
    for step in (sdist, wheel, repair, everything):
        step.add_argument("--out", type=Path, default=Path("dist"))
    everything.add_argument("--json", type=Path, help="write what was built, and its cost, there")
    for step in (check, everything):
        step.add_argument("--development", action="store_true")
    arguments = parser.parse_args()
    try:
        return run_step(arguments)
    except subprocess.CalledProcessError as error:
        print(f"{arguments.step}: {Path(error.cmd[0]).name} ended with {error.returncode}")
        return 1


def run_step(arguments: argparse.Namespace) -> int:
    if arguments.step == "sdist":
        print(make_sdist(arguments.out))
    elif arguments.step == "wheel":
        print(make_wheel(arguments.sdist, arguments.out))
    elif arguments.step == "repair":
        print(make_repaired(arguments.wheel, arguments.out, arguments.plat))
    elif arguments.step == "check":
        return run_checks(arguments)
    else:
        return run_all(arguments)
    return 0


def run_all(arguments: argparse.Namespace) -> int:
    source = make_sdist(arguments.out)
    with tempfile.TemporaryDirectory() as folder:
        before = cpu_seconds()
        built = make_wheel(source, Path(folder))
        cost = cpu_seconds() - before
        repaired = make_repaired(built, arguments.out)
    status = check_files([source, repaired], arguments.development)
    if arguments.json and status == 0:
        facts = {
            "commit": commit_of(ROOT),
            **sizes(repaired),
            "build CPU seconds": round(cost),
            "sdist": source.stat().st_size,
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    return status


def commit_of(checkout: Path) -> str:
    """What was built; with changes that are not committed it ends with -dirty."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def cpu_seconds() -> float:
    """What the commands that have ended took, whatever else the machine was doing."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sizes(wheel: Path) -> dict[str, Any]:
    """Bytes of a wheel, of its libraries as installed, and of their GPU code by architecture."""
    from abi_audit.checks import audit
    from abi_audit.inputs import find_artifacts
    from abi_audit.policy import Policy

    with zipfile.ZipFile(wheel) as archive:
        libraries = {name: archive.getinfo(name).file_size for name in libraries_in(wheel)}
    code = [
        {"library": report.key, "for": gpu.architecture, "bytes": gpu.size_bytes}
        for report in audit(find_artifacts(wheel), Policy())
        for gpu in (report.contents.gpu_code if report.contents else ())
    ]
    total = wheel.stat().st_size
    return {"wheel": wheel.name, "bytes": total, "libraries": libraries, "gpu code": code}


def make_sdist(out: Path) -> Path:
    """Build the source distribution, in an environment of its own."""
    return _made(
        out, "kvops-*.tar.gz", [sys.executable, "-m", "build", "--sdist"], "--outdir", ROOT
    )


def make_wheel(sdist: Path, out: Path) -> Path:
    """Build a wheel from nothing but the source distribution."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir"]
    return _made(out, "kvops-*.whl", command, "--wheel-dir", sdist)


def make_repaired(wheel: Path, out: Path, plat: str | None = None) -> Path:
    """Give a wheel its platform tag; auditwheel's bundling must have had nothing to do.

    Fails where the wheel needs more than `plat` promises.
    """
    command = ["auditwheel", "repair", "--only-plat"]
    if plat:
        command += ["--plat", f"{plat}_{platform.machine()}"]
    for library in TORCH_LIBRARIES:
        command += ["--exclude", library]
    repaired = _made(out, "kvops-*.whl", command, "--wheel-dir", wheel)
    if libraries_in(wheel) != libraries_in(repaired):
        repaired.unlink()
        raise SystemExit(
            f"auditwheel changed the libraries of {wheel}: they need what they must not"
        )
    return repaired


def _made(out: Path, pattern: str, command: list[str], option: str, source: Path) -> Path:
    """Run a command that puts one file into a folder; the file, moved to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        subprocess.run([*command, option, folder, str(source)], check=True, stdout=sys.stderr)
        (made,) = Path(folder).glob(pattern)
        return made.replace(out / made.name)


def libraries_in(wheel: Path) -> dict[str, str]:
    """Every shared library in a wheel, with the hash of its bytes."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".so" in Path(name).name]
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def run_checks(arguments: argparse.Namespace) -> int:
    status = check_files(arguments.files, arguments.development)
    version = project_version()
    if arguments.tag and arguments.tag != f"v{version}":
        print(f"tag {arguments.tag}: the version in pyproject.toml is {version}")
        status = max(status, 1)
    if arguments.record and status == 0:
        hashes = {path.name: hashlib.sha256(path.read_bytes()) for path in arguments.files}
        lines = [f"{digest.hexdigest()}  {name}\n" for name, digest in sorted(hashes.items())]
        arguments.record.write_text("".join(lines))
    return status


def check_files(files: list[Path], development: bool) -> int:
    """Print what keeps each file from being a release; the exit status."""
    status = 0
    for path in files:
        try:
            problems = list(check_wheel(path) if path.suffix == ".whl" else check_sdist(path))
        except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            print(f"{path}: unreadable: {error}")
            status = 2
            continue
        for problem in problems:
            excused = development and problem.local
            print(f"{path.name}: {'development: ' if excused else ''}{problem.text}")
            if not excused:
                status = max(status, 1)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(problems)} problems")
    return status


def check_wheel(wheel: Path) -> Iterator[Problem]:
    """Name, size, contents, CUDA, and the audit as if the wheel had the promised tag."""
    match = re.fullmatch(r"kvops-([^-]+)-cp310-abi3-(\w+?)_(x86_64|aarch64)\.whl", wheel.name)
    if match is None:
        yield Problem("is not named kvops-VERSION-cp310-abi3-PLATFORM.whl")
    elif match[1] != project_version():
        yield Problem(f"is version {match[1]}, the checkout is {project_version()}")
    if match is not None and match[2] != PLATFORM:
        yield Problem(f"has the tag {match[2]}, not {PLATFORM}: the image gives it", local=True)
    size = wheel.stat().st_size
    if size > MAX_BYTES:
        yield Problem(f"has {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f}")
    found = set(libraries_in(wheel))
    for name in sorted(found - set(NATIVE)):
        yield Problem(f"brings the library {name}")
    for name in sorted(set(NATIVE) - found):
        # KVOPS_CUDA=0: a wheel for a test of the build.
        yield Problem(f"lacks {name}", local=name.endswith("_C_cuda.abi3.so"))
    yield from _audited(wheel)


def _audited(wheel: Path) -> Iterator[Problem]:
    # The audit's own dependencies are not needed to build or to repair.
    sys.path.insert(0, str(ROOT / "build_backend"))
    from abi_audit.checks import audit
    from abi_audit.inputs import find_artifacts
    from abi_audit.model import Kind
    from abi_audit.phrases import finding_text
    from abi_audit.policy import Policy
    from toolchain import RELEASE_ARCHS, RELEASE_CUDA

    for report in audit(find_artifacts(wheel), Policy(platform=PLATFORM)):
        if report.problem is not None:
            raise OSError(report.problem)
        for finding in report.findings:
            if finding.violation:
                local = finding.kind is Kind.RUNTIME_TOO_NEW
                yield Problem(f"{report.key}: {finding_text(finding)}", local)
        assert report.contents is not None
        if report.key != NATIVE[1]:
            continue
        version = _cuda_version(wheel, report.contents)
        if version not in RELEASE_CUDA:
            wanted = " or ".join(RELEASE_CUDA)
            yield Problem(f"{report.key}: has the runtime of CUDA {version}, not {wanted}", True)
        code = {gpu.architecture for gpu in report.contents.gpu_code}
        numbers = [arch.replace(".", "") for arch in RELEASE_ARCHS]
        wanted_code = [f"sm_{number.removesuffix('+PTX')}" for number in numbers]
        wanted_code += [f"compute_{n[:-4]}" for n in numbers if n.endswith("+PTX")]
        missing = [name for name in wanted_code if name not in code]
        if missing:
            yield Problem(f"{report.key}: has no code for {', '.join(missing)}", True)


def _cuda_version(wheel: Path, contents: Contents) -> str:
    """Of the runtime itself; where that cannot be read (ARM), what the build wrote down."""
    runtime = contents.static_runtime
    if runtime is not None and runtime.version is not None:
        return ".".join(map(str, runtime.version))
    with zipfile.ZipFile(wheel) as archive:
        built_with = re.search(rb"CUDA (\d+\.\d+), \d", archive.read(NATIVE[1]))
    return built_with.group(1).decode() if runtime and built_with else "unknown"


def check_sdist(sdist: Path) -> Iterator[Problem]:
    """Everything that git has of the native sources and the packages, and nothing built."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if sdist.name != f"kvops-{project_version()}.tar.gz":
        yield Problem(f"is not kvops-{project_version()}.tar.gz")
    tracked = [name for name in git("ls-files").splitlines() if name.startswith(IN_SDIST)]
    if not tracked:
        yield Problem("can only be checked in a checkout: git lists no sources", local=True)
    for name in tracked:
        if name not in names:
            yield Problem(f"lacks {name}")
    for name in sorted(names):
        if name.endswith((".so", ".o", ".pyc")):
            yield Problem(f"brings {name}, which is built")


def git(*arguments: str) -> str:
    """What git says about this checkout; nothing where there is none."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout


def project_version() -> str:
    """The version in pyproject.toml, the one place that has it."""
    found = re.search(r'^version = "([^"]+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found.group(1)


if __name__ == "__main__":
    sys.exit(main())
