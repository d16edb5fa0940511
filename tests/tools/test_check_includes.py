"""tools/check_includes.py: dependency files of real compilers, include lines, failing closed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import check_includes
from abi_audit.headers import is_unstable_header, read_dependencies
from check_includes import Unreadable, check_dependencies

TORCH_INCLUDE = Path(torch.__file__).parent / "include"
STABLE_H = "libtorch_stable/common/stable.h"


@dataclass
class Project:
    """A source folder, a build folder and a stand-in for torch's headers."""

    root: Path

    @property
    def source(self) -> Path:
        return self.root / "csrc"

    @property
    def build(self) -> Path:
        return self.root / "build"

    def write(self, path: str, text: str = "") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def compile(self, source: str, *flags: str) -> None:
        output = self.build / f"{Path(source).name}.o"
        output.parent.mkdir(exist_ok=True)
        include = [f"-I{self.source}", f"-isystem{self.root / 'torch/include'}"]
        files = ["-MF", f"{output}.d", "-c", str(self.source / source), "-o", str(output)]
        subprocess.run(["g++", *include, *(flags or ["-MD"]), *files], check=True)

    def check(self) -> int:
        return check_includes.main([str(self.build), "--source", str(self.source)])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "a b$c")  # characters that make escapes
    project.write("torch/include/torch/csrc/stable/tensor.h")
    project.write("torch/include/ATen/core/Tensor.h")
    project.write(f"csrc/{STABLE_H}", "#include <torch/csrc/stable/tensor.h>\n")
    project.write("csrc/op.cpp", f'#include "{STABLE_H}"\n')
    return project


def test_clean(project, capsys):
    project.compile("op.cpp")
    assert project.check() == 0
    assert capsys.readouterr().out.startswith("0 findings in 1 dependency files with ")


def test_clean_with_phony_targets(project):
    project.compile("op.cpp", "-MD", "-MP")
    assert project.check() == 0


def test_unstable_header_inlined_through_another(project, capsys):
    nested = project.root / "torch/include/torch/csrc/stable/tensor.h"
    nested.write_text("#include <ATen/core/Tensor.h>\n")
    project.compile("op.cpp")
    project.write("csrc/other.cpp", f'#include "{STABLE_H}"\n')
    project.compile("other.cpp")
    assert project.check() == 1
    finding, summary = capsys.readouterr().out.splitlines()
    header = project.root / "torch/include/ATen/core/Tensor.h"
    assert finding.endswith(f"unstable-header: {header} (in 2 dependency files)")
    path, line, _ = finding.split(":", 2)
    assert Path(path) == project.build / "op.cpp.o.d"
    assert "Tensor.h" in Path(path).read_text().splitlines()[int(line) - 1]
    assert summary.startswith("1 findings in 2 dependency files")


TORCH = "/x/lib/python3.11/site-packages/torch/include"

HEADERS = {
    f"{TORCH}/torch/csrc/stable/c/shim.h": False,
    f"{TORCH}/torch/csrc/stable/tensor_inl.h": False,
    f"{TORCH}/torch/headeronly/util/Half.h": False,
    f"{TORCH}/torch/csrc/inductor/aoti_torch/c/shim.h": False,
    f"{TORCH}/torch/csrc/inductor/aoti_torch/generated/c_shim_aten.h": False,
    "/usr/include/c++/12/vector": False,
    "/opt/conda/envs/torch/include/python3.11/Python.h": False,
    "/home/me/torch/csrc_of_mine/x.h": False,
    "csrc/libtorch_stable/common/stable.h": False,
    f"{TORCH}/ATen/core/Tensor.h": True,
    f"{TORCH}/c10/util/Half.h": True,
    f"{TORCH}/caffe2/core/x.h": True,
    f"{TORCH}/pybind11/pybind11.h": True,
    f"{TORCH}/torch/extension.h": True,
    f"{TORCH}/torch/library.h": True,
    f"{TORCH}/torch/csrc/autograd/variable.h": True,
    f"{TORCH}/torch/csrc/api/include/torch/all.h": True,
    f"{TORCH}/torch/csrc/inductor/aoti_torch/utils.h": True,
    f"{TORCH}/torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h": True,
    f"{TORCH}/torch/csrc/stable/../autograd/variable.h": True,
    "/src/pytorch/torch/csrc/autograd/variable.h": True,
    "/src/pytorch/torch/csrc/api/include/torch/all.h": True,
    "include/torch/all.h": True,
}


@pytest.mark.parametrize("path", HEADERS)
def test_unstable_headers(path):
    assert is_unstable_header(path) is HEADERS[path]


def _preprocess(tmp_path: Path, header: str, *flags: str) -> list[str]:
    """The unstable headers that the installed torch's `header` brings."""
    source = tmp_path / "x.cpp"
    source.write_text(f"#include <{header}>\n")
    depfile = tmp_path / "x.d"
    command = ["g++", "-std=c++20", "-M", *flags]
    command += ["-isystem", str(TORCH_INCLUDE), "-MF", str(depfile), str(source)]
    subprocess.run(command, check=True)
    return [finding.what for finding in check_dependencies(read_dependencies(depfile))]


@pytest.mark.parametrize("header", ["library.h", "tensor.h", "ops.h", "accelerator.h"])
def test_torchs_own_stable_headers_pass(header, tmp_path):
    target = "-DTORCH_TARGET_VERSION=0x020a000000000000"
    assert _preprocess(tmp_path, f"torch/csrc/stable/{header}", target) == []


def test_torchs_own_unstable_headers_fail(tmp_path):
    found = _preprocess(tmp_path, "c10/util/ArrayRef.h")
    assert any("c10/util/ArrayRef.h" in what for what in found)


def test_dependency_syntax(tmp_path):
    path = tmp_path / "x.d"
    path.write_text(
        "a.o b.o : one.h \\\n"
        " /with\\ space/two.h /dollar$$/three.h\\\n"
        " four\\#.h\n"
        "\n"
        "c.o: five.h C:/six.h\n"
        "one.h:\n"
    )
    found = [(dependency.header, dependency.line) for dependency in read_dependencies(path)]
    assert found == [
        ("one.h", 1),
        ("/with space/two.h", 2),
        ("/dollar$/three.h", 2),
        ("four#.h", 3),
        ("five.h", 5),
        ("C:/six.h", 5),
    ]


@pytest.mark.parametrize("text", ["", "\n", "x.o:\n", "garbage\n", "a.h \\\n b.h\n", "x.o: \\\n"])
def test_dependency_file_without_dependencies(text, tmp_path):
    path = tmp_path / "x.d"
    path.write_text(text)
    with pytest.raises(Unreadable, match=r"x\.d"):
        read_dependencies(path)


SOURCES = {
    '#include "../common/checks.h"': "climbing-include: ../common/checks.h",
    '#include "cache/../common/checks.h"': "climbing-include: cache/../common/checks.h",
    "  #  include <a/../b.h>": "climbing-include: a/../b.h",
    "#include <torch/csrc/stable/tensor.h>": "torch-include: torch/csrc/stable/tensor.h, "
    f"only {STABLE_H} may",
    "#include <torch/headeronly/util/Half.h>": "torch-include: torch/headeronly/util/Half.h, "
    f"only {STABLE_H} may",
    "#include <torch/extension.h>": "unstable-header: torch/extension.h",
    '#include "ATen/ATen.h"': "unstable-header: ATen/ATen.h",
    "#include <c10/util/Half.h>": "unstable-header: c10/util/Half.h",
    "#include <pybind11/pybind11.h>": "unstable-header: pybind11/pybind11.h",
    "#include SOME_HEADER": "computed-include: SOME_HEADER",
}


@pytest.mark.parametrize("line", SOURCES)
@pytest.mark.parametrize("suffix", ["cpp", "h", "cuh", "cu"])
def test_source_findings(line, suffix, project, capsys):
    project.compile("op.cpp")
    path = project.write(f"csrc/cache/x.{suffix}", f"// header\n{line}\n")
    assert project.check() == 1
    assert capsys.readouterr().out.splitlines()[0] == f"{path}:2: {SOURCES[line]}"


@pytest.mark.parametrize(
    "line",
    [
        '#include "common/checks.h"',
        "#include <vector>",
        '// #include "../x.h"',
        '#include "torchless/x.h"',
        "#define INCLUDE <torch/extension.h>",
    ],
)
def test_source_without_findings(line, project):
    project.compile("op.cpp")
    project.write("csrc/cache/x.h", f"{line}\n")
    assert project.check() == 0


def test_stable_h_may_not_include_unstable_headers(project, capsys):
    project.compile("op.cpp")
    path = project.write(f"csrc/{STABLE_H}", "#include <torch/library.h>\n")
    assert project.check() == 1
    assert f"{path}:1: unstable-header: torch/library.h" in capsys.readouterr().out


def test_no_build_folder(project, capsys):
    assert project.check() == 2
    assert "no such folder" in capsys.readouterr().out


def test_no_dependency_file(project, capsys):
    project.build.mkdir()
    assert project.check() == 2
    assert "no dependency file" in capsys.readouterr().out


def test_object_without_dependency_file(project, capsys):
    project.compile("op.cpp")
    project.write("build/other.o")
    assert project.check() == 2
    assert "other.o: compiled without a dependency file" in capsys.readouterr().out


def test_system_headers_left_out(project, capsys):
    project.compile("op.cpp", "-MMD")
    assert project.check() == 2
    assert "no torch header in any dependency file" in capsys.readouterr().out


def test_no_source(project, capsys):
    project.compile("op.cpp")
    status = check_includes.main([str(project.build), "--source", str(project.root / "none")])
    assert status == 2
    assert "no source file" in capsys.readouterr().out
