"""tools/audit_abi.py: every kind of finding, every option, text and JSON."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("torch-abi-audit needs Python 3.11", allow_module_level=True)

import audit_abi
from audit_support import ANY, audit_json, call, findings_of, make_wheel, shim

TOOL = Path(audit_abi.__file__)
LIBTORCH = ("libtorch_cpu.so",)

CLEAN = """
namespace torch::stable { struct Tensor; void use(Tensor&); }
namespace torch::headeronly { void check(int); }
extern "C" int aoti_torch_get_dim(void*, long*);
extern "C" int torch_library_impl(void*, const char*);
extern "C" int PyModule_GetName(void*);
extern "C" int entry(torch::stable::Tensor& t) {
  torch::stable::use(t);
  torch::headeronly::check(1);
  return aoti_torch_get_dim(nullptr, nullptr) + torch_library_impl(nullptr, "") +
         PyModule_GetName(nullptr);
}
"""


def test_clean_library(compile_library, capsys):
    library = compile_library(CLEAN, name="_C.abi3.so", needed=LIBTORCH, runtime=True)
    document = audit_json(capsys, library)
    assert document["verdict"] == "clean"
    assert findings_of(document) == []
    (report,) = document["libraries"]
    assert report["min_torch"] == "2.10.0"
    assert report["pinned_by"] == ["torch_library_impl"]
    assert report["min_torch_is_lower_bound"] is False
    assert "libtorch_cpu.so" in report["needed"]


FINDINGS = {
    "undefined, own scope": (
        call("namespace c10 { void f(int); }", "c10::f(1)"),
        [("undefined-unstable", "c10::f(int)", False, True)],
    ),
    "undefined, weak": (
        call("namespace at { __attribute__((weak)) void f(); }", "at::f()"),
        [("undefined-unstable", "at::f()", True, True)],
    ),
    "undefined, parameter": (
        call("namespace at { struct Tensor; } void mine(at::Tensor*);", "mine(nullptr)"),
        [("undefined-unstable", "mine(at::Tensor*)", False, True)],
    ),
    "undefined, template argument": (
        call(
            "namespace c10 { struct Half; } template <class T> struct V { static void grow(); };",
            "V<c10::Half>::grow()",
        ),
        [("undefined-unstable", "V<c10::Half>::grow()", False, True)],
    ),
    "undefined, torch outside stable": (
        call("namespace torch::jit { void f(); }", "torch::jit::f()"),
        [("undefined-unstable", "torch::jit::f()", False, True)],
    ),
    "undefined, name that only begins like stable": (
        call("namespace torch::stable_impl { void f(); }", "torch::stable_impl::f()"),
        [("undefined-unstable", "torch::stable_impl::f()", False, True)],
    ),
    "undefined, caffe2": (
        call("namespace caffe2 { void f(); }", "caffe2::f()"),
        [("undefined-unstable", "caffe2::f()", False, True)],
    ),
    "undefined, name that cannot be demangled": (
        call('void mine() __asm__("_ZN3c1099brokenE");', "mine()"),
        [("undefined-unstable", "_ZN3c1099brokenE", False, True)],
    ),
    "undefined, other people's namespaces": (
        call(
            "namespace mine::at { void f(); } namespace cat { void f(); } "
            "namespace atomic { void f(); }",
            "mine::at::f(); cat::f(); atomic::f()",
        ),
        [],
    ),
    "undefined, overloads are two symbols": (
        call("namespace c10 { void f(int); void f(char); }", "c10::f(1); c10::f('1')"),
        [
            ("undefined-unstable", "c10::f(char)", False, True),
            ("undefined-unstable", "c10::f(int)", False, True),
        ],
    ),
    "exported": (
        "namespace c10 { int f() { return 1; } }",
        [("exported-unstable", "c10::f()", False, True)],
    ),
    "exported, weak": (
        "namespace c10 { __attribute__((weak)) int f() { return 1; } }",
        [("exported-unstable", "c10::f()", True, True)],
    ),
    "exported, unique": (
        "namespace at { template <class T> struct S { static int v; };"
        " template <class T> int S<T>::v = 1; template struct S<int>; }",
        [("exported-unstable", "at::S<int>::v", False, True)],
    ),
    "exported, counted by mangled name": (
        "namespace at { struct S { S(); }; S::S() {} }",
        [("exported-unstable", "at::S::S()", False, True)] * 2,
    ),
    "exported, hidden is not exported": (
        'namespace c10 { __attribute__((visibility("hidden"))) int f() { return 1; } }\n'
        'extern "C" int entry() { return c10::f(); }',
        [],
    ),
    "exported, stable": ("namespace torch::stable { int f() { return 1; } }", []),
    "shim newer than the floor": (
        shim("torch_from_blob"),
        [("shim-too-new", "torch_from_blob", False, True)],
    ),
    "shim newer than the floor, weak": (
        shim("torch_from_blob", "__attribute__((weak))"),
        [("shim-too-new", "torch_from_blob", True, False)],
    ),
    "shim of torch 2.15": (
        shim("torch_is_tensor_pyobject"),
        [("shim-too-new", "torch_is_tensor_pyobject", False, True)],
    ),
    "shim unknown": (
        shim("aoti_torch_no_such_shim"),
        [("shim-unknown", "aoti_torch_no_such_shim", False, True)],
    ),
    "shim unknown, weak": (
        shim("torch_no_such_shim", "__attribute__((weak))"),
        [("shim-unknown", "torch_no_such_shim", True, True)],
    ),
    "shim of the floor": (shim("torch_call_dispatcher"), []),
    "Python API outside the limited API": (
        shim("PyFrame_GetBack"),
        [("python-api", "PyFrame_GetBack", False, True)],
    ),
    "Python API, private": (
        shim("_PyType_Lookup"),
        [("python-api", "_PyType_Lookup", False, True)],
    ),
    "Python API of a later limited API": (
        shim("PyObject_Vectorcall"),
        [("python-api", "PyObject_Vectorcall", False, True)],
    ),
    "Python API of the limited API": (shim("PyObject_Call"), []),
}


@pytest.mark.parametrize("case", FINDINGS)
def test_symbol_findings(case, compile_library, capsys):
    source, expected = FINDINGS[case]
    document = audit_json(capsys, compile_library(source))
    assert findings_of(document) == expected
    broken = any(violation for *_, violation in expected)
    assert document["verdict"] == ("policy-broken" if broken else "clean")


DEPENDENCIES = {
    "nothing": ("library.so", (), []),
    "runtime": ("library.so", ("libstdc++.so.6", "libm.so.6", "ld-linux-aarch64.so.1"), []),
    "refused": (
        "_C.abi3.so",
        (*LIBTORCH, "libcudart.so.13", "libcuda.so.1", "libtorch_cuda.so", "libtorch_python.so",
         "libc10.so", "libpython3.11.so.1.0", "libgomp.so.1"),
        ["libcudart.so.13", "libcuda.so.1", "libtorch_cuda.so", "libtorch_python.so", "libc10.so",
         "libpython3.11.so.1.0", "libgomp.so.1"],
    ),
    "libtorch in the CPU library": (
        "_C.abi3.so", (*LIBTORCH, "libtorch.so"), ["libtorch.so"]
    ),
    "libtorch in the CUDA library": (
        "_C_cuda.abi3.so", (*LIBTORCH, "libtorch.so", "ld-linux-x86-64.so.2"), []
    ),
    "cudart in the CUDA library": (
        "_C_cuda.abi3.so", (*LIBTORCH, "libtorch.so", "libcudart.so.12"), ["libcudart.so.12"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DEPENDENCIES)
def test_needed(case, compile_library, capsys):
    name, needed, refused = DEPENDENCIES[case]
    document = audit_json(capsys, compile_library(ANY, name=name, needed=needed))
    found = [finding for finding in findings_of(document) if finding[0] != "one-python"]
    assert found == [("needed", library, None, True) for library in refused]
    assert document["libraries"][0]["needed"] == list(needed)


@pytest.mark.parametrize(
    ("name", "missing"), [("_C.abi3.so", "libtorch_cpu.so"), ("_C_cuda.abi3.so", "libtorch.so")]
)
def test_needed_missing(name, missing, compile_library, capsys):
    document = audit_json(capsys, compile_library(ANY, name=name))
    assert findings_of(document) == [("needed-missing", missing, None, True)]


def test_allow_needed(compile_library, capsys):
    library = compile_library(ANY, needed=("libfoo.so.3", "libbar.so"))
    assert audit_json(capsys, library, "--allow-needed", "libfoo.so.*")["exit_code"] == 1
    both = ("--allow-needed", "libfoo.so.*", "--allow-needed", "libbar.so")
    assert audit_json(capsys, library, *both)["exit_code"] == 0


@pytest.mark.parametrize(
    ("flag", "kind"), [("--disable-new-dtags", "rpath"), ("--enable-new-dtags", "runpath")]
)
def test_search_paths_are_notes(flag, kind, compile_library, capsys):
    library = compile_library(ANY, flags=(f"-Wl,{flag}", "-Wl,-rpath,$ORIGIN/x:/opt/y"))
    document = audit_json(capsys, library)
    assert document["exit_code"] == 0
    assert findings_of(document) == [(kind, "$ORIGIN/x:/opt/y", None, False)]
    assert document["libraries"][0][kind] == ["$ORIGIN/x:/opt/y"]


@pytest.mark.parametrize(("floor", "status"), [("2.9", 1), ("2.10", 1), ("2.11.0", 0)])
def test_floor(floor, status, compile_library, capsys):
    library = compile_library(shim("torch_from_blob"))
    assert audit_json(capsys, library, "--floor", floor)["exit_code"] == status


@pytest.mark.parametrize(
    ("source", "min_torch", "lower_bound", "pinned_by"),
    [
        (ANY, None, False, []),
        (shim("aoti_torch_get_dim"), "2.9.0", False, []),
        (shim("torch_from_blob"), "2.11.0", False, ["torch_from_blob"]),
        (shim("torch_from_blob", "__attribute__((weak))"), None, False, []),
        (shim("torch_no_such_shim"), None, True, []),
        (shim("torch_no_such_shim", "__attribute__((weak))"), None, False, []),
        (call("namespace at { void f(); }", "at::f()"), None, True, []),
    ],
    ids=["none", "baseline", "pinned", "weak", "unknown", "unknown-weak", "unstable"],
)
def test_min_torch(source, min_torch, lower_bound, pinned_by, compile_library, capsys):
    (report,) = audit_json(capsys, compile_library(source))["libraries"]
    assert report["min_torch"] == min_torch
    assert report["min_torch_is_lower_bound"] is lower_bound
    assert report["pinned_by"] == pinned_by


@pytest.mark.parametrize(
    ("tag", "options", "status"),
    [
        ("cp310-abi3", [], 1),
        ("cp312-abi3", [], 0),
        ("cp310.cp312-abi3", [], 1),
        ("py3-none", [], 1),
        ("cp310-abi3", ["--python", "3.12"], 0),
        ("cp312-abi3", ["--python", "cp311"], 1),
    ],
)
def test_limited_api_of_the_wheels_tag(tag, options, status, compile_library, tmp_path, capsys):
    library = compile_library(shim("PyObject_Vectorcall"))  # limited API since 3.12
    wheel = make_wheel(tmp_path / f"x-1-{tag}-linux_x86_64.whl", {"x/library.so": library})
    assert audit_json(capsys, wheel, *options)["exit_code"] == status


def test_wheel_and_directory_find_every_library(compile_library, tmp_path, capsys):
    library = compile_library(ANY)
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("deep/a.so", "b.so.1.2", "not_a_library.sol", "c.so.txt"):
        (folder / name).write_bytes(library.read_bytes())
    (folder / "b.so").symlink_to("b.so.1.2")
    members = {"x/_x.abi3.so": library, "x.libs/y-1a2b.so.3": library, "x/__init__.py": b""}
    wheel = make_wheel(folder / "x-1-py3-none-any.whl", members)
    document = audit_json(capsys, folder, library)
    assert [report["path"] for report in document["libraries"]] == [
        str(folder / "b.so"),
        f"{wheel}:x.libs/y-1a2b.so.3",
        f"{wheel}:x/_x.abi3.so",
        str(folder / "deep/a.so"),
        str(library),
    ]
    assert document["verdict"] == "clean"


def test_json_values(compile_library, capsys):
    document = audit_json(capsys, compile_library(shim("torch_from_blob")), "missing.so")
    assert document["policy"] == {
        "torch_floor": "2.10.0",
        "python": None,
        "extra_needed": [],
        "builds": ["cpu", "cu12", "cu13"],
        "driver": False,
        "platform": None,
    }
    broken, unreadable = document["libraries"]
    assert broken["counts"].pop("shim-too-new") == 1
    assert set(broken["counts"].values()) == {0}
    assert broken["shims"] == [{"name": "torch_from_blob", "since": "2.11.0", "weak": False}]
    (finding,) = broken["findings"]
    assert finding == {
        "kind": "shim-too-new",
        "violation": True,
        "subject": "torch_from_blob",
        "display": "torch_from_blob",
        "weak": False,
        "detail": "since torch 2.11.0, floor 2.10.0",
    }
    assert (broken["verdict"], unreadable["verdict"]) == ("policy-broken", "unreadable")
    assert unreadable["problem"] == "no such file or directory"


def test_text_is_one_finding_per_line(compile_library, capsys):
    source = call(
        'namespace c10 { void f(int); }\nextern "C" __attribute__((weak)) void torch_from_blob();',
        "c10::f(1); torch_from_blob()",
    )
    library = compile_library(source, name="odd\nname.so", needed=("libcudart.so.12",))
    assert audit_abi.main([str(library)]) == 1
    label = str(library).replace("\n", "\\n")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        f"{label}: undefined-unstable: c10::f(int) [_ZN3c101fEi], hard",
        f"{label}: note: shim-too-new: torch_from_blob, weak, since torch 2.11.0, floor 2.10.0",
        f"{label}: needed: libcudart.so.12, ties the file to one CUDA major version and to "
        "torches built for CUDA",
        f"{label}: policy-broken: 1 undefined and 0 exported unstable symbols, 1 shims (1 weak), "
        "0 symbols outside the limited API of Python 3.10, needs libcudart.so.12",
    ]
    assert all(line.startswith("  ") for line in lines[4:-1])
    assert lines[-1] == "verdict: policy-broken (1 policy-broken)"


def test_text_names_the_pinning_shims(compile_library, capsys):
    library = compile_library(CLEAN, name="_C.abi3.so", needed=LIBTORCH)
    assert audit_abi.main([str(library)]) == 0
    assert "\n  min-torch: 2.10.0, pinned by torch_library_impl\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["--floor", "2"], ["--floor", "x.y", "a.so"], ["--python", "py3", "a.so"]]
)
def test_usage_errors_are_not_clean(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        audit_abi.main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_runs_from_anywhere_without_kvops_or_torch(compile_library, tmp_path):
    library = compile_library(CLEAN, name="_C.abi3.so", needed=LIBTORCH)
    script = (
        "import runpy, sys\n"
        "sys.modules['torch'] = sys.modules['kvops'] = None\n"
        f"sys.argv[1:] = [{str(library)!r}]\n"
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[0] = {str(TOOL.parent)!r}\n{script}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("verdict: clean (1 clean)\n")
    done = subprocess.run([sys.executable, TOOL, library], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0


def test_missing_dependency_is_not_clean(tmp_path):
    script = (
        "import sys, runpy; sys.modules['elftools'] = None; sys.argv[1:] = ['x.so']; "
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[0] = {str(TOOL.parent)!r}; {script}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install pyelftools torch-abi-audit" in done.stderr
