"""The build's decisions: which headers, which architectures, what each library is made of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "build_backend"))

import command  # noqa: E402
import ninja_file  # noqa: E402
import toolchain  # noqa: E402
import torch_headers  # noqa: E402


def fake_torch(folder: Path, version: str) -> Path:
    """A folder that looks like torch's: version.py and one header of the stable ABI."""
    (folder / "include/torch/csrc/stable").mkdir(parents=True)
    (folder / "include/torch/csrc/stable/library.h").touch()
    (folder / "version.py").write_text(f"__version__ = '{version}'\n")
    return folder


@pytest.fixture
def no_torch_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KVOPS_TORCH", raising=False)
    monkeypatch.setattr(torch_headers, "_installed_torch_folders", lambda: [])


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "2.14.0"])
def test_old_headers_stop_the_build(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVOPS_TORCH", str(fake_torch(tmp_path / "torch", version)))
    with pytest.raises(torch_headers.HeadersError, match="leaks about 100 bytes a call") as caught:
        torch_headers.find_torch_headers()
    assert f"is torch {version}" in str(caught.value)


def test_wrong_folder_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVOPS_TORCH", str(tmp_path))
    with pytest.raises(torch_headers.HeadersError, match="is not a torch folder"):
        torch_headers.find_torch_headers()


def test_by_hand_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = fake_torch(tmp_path / "by_hand", "2.14.1")
    installed = fake_torch(tmp_path / "installed", "2.15.0")
    monkeypatch.setattr(torch_headers, "_installed_torch_folders", lambda: [installed])
    monkeypatch.setenv("KVOPS_TORCH", str(by_hand))
    assert torch_headers.find_torch_headers().include == by_hand / "include"
    monkeypatch.delenv("KVOPS_TORCH")
    assert torch_headers.find_torch_headers().include == installed / "include"


def test_old_installed_torch_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KVOPS_TORCH", raising=False)
    folders = [fake_torch(tmp_path / "a", "2.13.0+cpu"), fake_torch(tmp_path / "b", "2.16.0.dev1")]
    monkeypatch.setattr(torch_headers, "_installed_torch_folders", lambda: folders)
    assert torch_headers.find_torch_headers().version == "2.16.0.dev1"


def test_fetched_headers_are_cached(
    no_torch_installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    version = torch_headers.FETCHED_VERSION
    fake_torch(tmp_path / "kvops" / f"torch-{version}-headers" / "torch", version)
    monkeypatch.setattr(torch_headers, "_download_wheel", lambda folder: pytest.fail("downloads"))
    assert torch_headers.find_torch_headers().version == version


def test_fetch_that_fails_says_why(
    no_torch_installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch_headers, "FETCHED_VERSION", "99.0.0")
    with pytest.raises(torch_headers.HeadersError, match=r"pip could not fetch torch 99\.0\.0"):
        torch_headers.find_torch_headers()
    assert not (tmp_path / "kvops" / "torch-99.0.0-headers").exists()


def test_cuda_forced_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_find_nvcc", lambda: None)
    monkeypatch.setenv("KVOPS_CUDA", "1")
    with pytest.raises(toolchain.ToolchainError, match="there is no nvcc"):
        toolchain.cuda_toolchain()
    monkeypatch.setenv("KVOPS_CUDA", "")
    assert toolchain.cuda_toolchain() is None
    monkeypatch.setenv("KVOPS_CUDA", "yes")
    with pytest.raises(toolchain.ToolchainError, match="must be 0, 1 or unset"):
        toolchain.cuda_toolchain()


@pytest.mark.parametrize(
    ("wish", "flags"),
    [
        ("9.0", ["-gencode=arch=compute_90,code=sm_90"]),
        ("9.0a", ["-gencode=arch=compute_90a,code=sm_90a"]),
        (
            "8.0; 10.0+PTX",
            [
                "-gencode=arch=compute_80,code=sm_80",
                "-gencode=arch=compute_100,code=sm_100",
                "-gencode=arch=compute_100,code=compute_100",
            ],
        ),
    ],
)
def test_architectures(wish: str, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVOPS_CUDA_ARCHS", wish)
    archs = toolchain._architectures()
    assert toolchain.CudaToolchain("nvcc", "13.0", (), archs).gencode_flags() == flags


def test_architecture_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVOPS_CUDA_ARCHS", "all")
    assert toolchain._architectures() == toolchain.RELEASE_ARCHS
    monkeypatch.setenv("KVOPS_CUDA_ARCHS", "")
    monkeypatch.setattr(toolchain, "_gpus_present", lambda: ())
    assert toolchain._architectures() == ("9.0+PTX",)
    monkeypatch.setattr(toolchain, "_gpus_present", lambda: ("8.9",))
    assert toolchain._architectures() == ("8.9",)
    monkeypatch.setenv("KVOPS_CUDA_ARCHS", "hopper")
    with pytest.raises(toolchain.ToolchainError, match="semicolon list"):
        toolchain._architectures()


@pytest.mark.parametrize(("version", "accepted"), [("12.8", True), ("12.9", True), ("13.0", False)])
def test_release_is_built_with_cuda_12(
    version: str, accepted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.1'\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(toolchain, "_find_nvcc", lambda: str(nvcc))
    monkeypatch.setenv("KVOPS_CUDA", "1")
    monkeypatch.setenv("KVOPS_CUDA_ARCHS", "9.0")
    for release in ("", "0"):
        monkeypatch.setenv("KVOPS_RELEASE", release)
        assert toolchain.cuda_toolchain().version == version
    monkeypatch.setenv("KVOPS_RELEASE", "1")
    if accepted:
        assert toolchain.cuda_toolchain().version == version
        return
    with pytest.raises(toolchain.ToolchainError, match=r"built with CUDA 12\.8 or 12\.9") as caught:
        toolchain.cuda_toolchain()
    assert str(caught.value).endswith("is CUDA 13.0")


def test_musl_is_refused_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"SOABI": "cpython-312-x86_64-linux-musl"}
    monkeypatch.setattr(toolchain.sysconfig, "get_config_var", said.get)
    with pytest.raises(toolchain.ToolchainError, match="cannot be built for musl libc: torch"):
        toolchain.cxx_compiler()


@pytest.mark.parametrize("free_threaded", [None, 0, 1])
def test_free_threaded_python_builds_its_own_wheel(
    free_threaded: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"Py_GIL_DISABLED": free_threaded, "EXT_SUFFIX": ".cpython-314t-x86_64-linux-gnu.so"}
    monkeypatch.setattr(command.sysconfig, "get_config_var", said.get)
    abi3 = {"bdist_wheel": {"py_limited_api": "cp310"}}
    assert command.wheel_options() == ({} if free_threaded else abi3)
    # kvops/_native.py opens this name, whatever Python calls its extensions.
    assert command.BuildNative.get_ext_filename(None, "kvops._C") == "kvops/_C.abi3.so"


def test_cuda_code_is_confined_to_cuda_folders() -> None:
    """What a build without CUDA compiles must not need it: a HIP port has a place to go."""
    for source, _, rule, _ in ninja_file._cpu_plan().objects:
        assert rule == "cxx"
        assert "cuda" not in source.relative_to(ninja_file.SOURCES).parts
    for source in ninja_file.SOURCES.rglob("*"):
        if source.is_file() and "cuda" not in source.relative_to(ninja_file.SOURCES).parts:
            assert source.suffix not in (".cu", ".cuh"), source
            assert "#include <cuda" not in source.read_text(), source


def test_simd_flags_reach_kernels_only() -> None:
    for source, _, _, flags in ninja_file._cpu_plan().objects:
        assert ("-mavx" in flags) <= ("kernels" in source.parts), source
