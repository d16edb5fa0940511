"""tools/release.py: what may be published, and what may not; the sdist has what a build needs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("torch-abi-audit needs Python 3.11", allow_module_level=True)

import release
from audit_support import ANY, call, make_wheel

VERSION = release.project_version()
NAME = f"kvops-{VERSION}-cp310-abi3-manylinux_2_28_x86_64.whl"
# Every symbol version in it is old: the tests run on any machine.
CPU, CUDA = (("libtorch_cpu.so",), ("libtorch_cpu.so", "libtorch.so"))


@pytest.fixture
def wheel(compile_library, tmp_path):
    """Returns a function that makes a wheel with both libraries, and more if asked."""

    def make(name: str = NAME, cpu: str = ANY, **more: bytes) -> Path:
        libraries: dict[str, Path | bytes] = {
            release.NATIVE[0]: compile_library(cpu, name="_C.abi3.so", needed=CPU),
            release.NATIVE[1]: compile_library(ANY, name="_C_cuda.abi3.so", needed=CUDA),
        }
        return make_wheel(tmp_path / name, libraries | more)

    return make


def problems(path: Path) -> list[tuple[str, bool]]:
    return [(problem.text, problem.local) for problem in release.check_wheel(path)]


# A library without GPU code is what the fixtures can make.
NO_CUDA = [
    ("kvops/_C_cuda.abi3.so: has the runtime of CUDA unknown, not 12.8 or 12.9", True),
    (
        "kvops/_C_cuda.abi3.so: has no code for sm_75, sm_80, sm_86, sm_89, sm_90, sm_100, sm_120,"
        " compute_120",
        True,
    ),
]


def test_development_build(wheel):
    made = wheel(NAME.replace("manylinux_2_28", "linux"))
    tag = ("has the tag linux, not manylinux_2_28: the image gives it", True)
    assert problems(made) == [tag, *NO_CUDA]
    assert release.main.__module__ == "release"
    assert release.check_files([made], development=True) == 0
    assert release.check_files([made], development=False) == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("kvops-0.0.1-cp310-abi3-manylinux_2_28_x86_64.whl", "is version 0.0.1, the checkout is"),
        (NAME.replace("cp310-abi3", "cp312-cp312"), "is not named kvops-VERSION-cp310-abi3-"),
        (NAME.replace("manylinux", "musllinux"), "has the tag musllinux_2_28"),
    ],
)
def test_wrong_name(name, problem, wheel):
    assert any(text.startswith(problem) for text, _ in problems(wheel(name)))


def test_library_that_must_not_come_along(wheel):
    made = wheel(**{"kvops.libs/libcudart-1234.so.12": b""})
    with pytest.raises(OSError, match="not a readable ELF file"):
        problems(made)
    assert release.check_files([made], development=True) == 2
    assert (
        next(release.check_wheel(made)).text == "brings the library kvops.libs/libcudart-1234.so.12"
    )


def test_audit_counts_in_development_too(wheel):
    unstable = call("namespace c10 { void f(); }", "c10::f()")
    made = wheel(cpu=unstable)
    assert ("kvops/_C.abi3.so: c10::f() [_ZN3c101fEv], hard", False) in problems(made)
    assert release.check_files([made], development=True) == 1


def test_too_large(wheel, monkeypatch):
    made = wheel()
    monkeypatch.setattr(release, "MAX_BYTES", 1000)
    assert any("more than 0" in text and not local for text, local in problems(made))


def test_tag_and_record(wheel, tmp_path, capsys, monkeypatch):
    made, record = wheel(), tmp_path / "sums"
    arguments = ["release.py", "check", str(made), "--development", "--record", str(record)]
    for tag, status in (("v0.0.0", 1), (f"v{VERSION}", 0)):
        monkeypatch.setattr(sys, "argv", [*arguments, "--tag", tag])
        assert release.main() == status
        assert record.exists() == (status == 0)  # nothing is recorded that must not be published
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    assert record.read_text() == f"{digest}  {made.name}\n"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Made from a copy of what git tracks, by the hooks that `build` calls."""
    if not (release.ROOT / ".git").exists():
        pytest.skip("an sdist is made from a checkout")
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=release.ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (release.ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(release.ROOT / name, copy / name)
    code = (
        "import sys; sys.path.insert(0, 'build_backend')\n"
        "import backend; backend.build_sdist(sys.argv[1])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=copy, check=True, capture_output=True
    )
    (made,) = out.glob("*.tar.gz")
    return made


def test_sdist_is_complete(sdist):
    assert list(release.check_sdist(sdist)) == []
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert not [name for name in names if "/tests/" in name]


def test_sdist_plans_the_same_build(sdist, tmp_path):
    """Every source that the build names is there; tools/release.py wheel compiles them."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    code = (
        "import sys; sys.path.insert(0, 'build_backend')\n"
        "import ninja_file, toolchain, torch_headers\n"
        "cuda = toolchain.CudaToolchain('nvcc', '12.9', (), toolchain.RELEASE_ARCHS)\n"
        "headers = torch_headers.TorchHeaders(ninja_file.ROOT / 'include', '2.15.0', 'a test')\n"
        "ninja_file.write_ninja_file(ninja_file.ROOT / 'plan', 'g++', headers, cuda, '0')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    planned = subprocess.run(
        [sys.executable, "-m", "ninja", "-C", str(folder / "plan"), "-n"],
        capture_output=True,
        text=True,
    )
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "link _C_cuda.abi3.so" in planned.stdout


def test_damaged_sdist(tmp_path):
    path = tmp_path / f"kvops-{VERSION}.tar.gz"
    path.write_bytes(b"no archive")
    assert release.check_files([path], development=True) == 2
