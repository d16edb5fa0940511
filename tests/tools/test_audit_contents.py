"""tools/abi_audit: what is inside a library besides symbols, and what its runtime must be."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if sys.version_info < (3, 11):
    pytest.skip("torch-abi-audit needs Python 3.11", allow_module_level=True)

from abi_audit.facts import libstdcxx_of_glibc
from abi_audit.fatbin import DamagedFatbin, read_fatbin
from audit_support import ANY, audit_json, call, findings_of, make_wheel

PTX, SASS = 1, 2
SPECIFIC, FAMILY = 0x100000, 0x200000


def entry(kind: int, architecture: int, flags: int = 0x11, code: bytes = b"x" * 24) -> bytes:
    fields = (kind, 0x101, 64, len(code), b"", 1, 8, architecture, b"", flags)
    return struct.pack("<HHIQ8sHHI8sI", *fields).ljust(64, b"\0") + code


def container(*entries: bytes) -> bytes:
    content = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(content)) + content


TWO_CONTAINERS = (
    container(entry(SASS, 75), entry(SASS, 90, 0x11 | SPECIFIC), entry(PTX, 90))
    + b"\0" * 8
    + container(entry(SASS, 75), entry(SASS, 100, 0x11 | FAMILY))
)


def test_gpu_code(compile_library, capsys):
    numbers = ",".join(map(str, TWO_CONTAINERS))
    section = (
        f'__attribute__((section(".nv_fatbin"), used)) const unsigned char f[] = {{{numbers}}};'
    )
    (report,) = audit_json(capsys, compile_library(f"{ANY}\n{section}"))["libraries"]
    assert report["gpu_code"] == [
        {"kind": "ptx", "architecture": "compute_90", "entries": 1, "size_bytes": 88},
        {"kind": "sass", "architecture": "sm_75", "entries": 2, "size_bytes": 176},
        {"kind": "sass", "architecture": "sm_90a", "entries": 1, "size_bytes": 88},
        {"kind": "sass", "architecture": "sm_100f", "entries": 1, "size_bytes": 88},
    ]


@pytest.mark.parametrize("length", [1, 15, 17, 40, 79, 81, len(TWO_CONTAINERS) - 1])
def test_gpu_code_cut_short_is_not_clean(length):
    with pytest.raises(DamagedFatbin):
        read_fatbin(TWO_CONTAINERS[:length])


def test_damaged_gpu_code_makes_the_library_unreadable(compile_library, capsys):
    section = '__attribute__((section(".nv_fatbin"), used)) const char f[] = "no container";'
    document = audit_json(capsys, compile_library(f"{ANY}\n{section}"))
    assert document["exit_code"] == 2
    assert "its contents cannot be read" in document["libraries"][0]["problem"]


def runtime_source(version: int | None) -> str:
    """Texts and, with a version, the instructions that a static CUDA runtime has."""
    asks = "" if version is None else (
        'extern "C" __attribute__((naked)) void ask() { asm("mov %%rcx, %%r8; mov %%rdx, %%rcx;'
        f' mov ${version}, %%edx; ret" :::); }}'
    )  # fmt: skip
    texts = 'extern "C" const char a[] = "Insufficient driver: %d < %d";' + (
        'extern "C" const char b[] = "cudaErrorCudartUnloading";'
    )
    return f"{ANY}\n{texts}\n{asks}"


@pytest.mark.parametrize(
    ("version", "shown", "driver"),
    [
        (13000, "13.0", "580.65.06"),
        (12090, "12.9", "525.60.13"),
        (12080, "12.8", "525.60.13"),
        (None, "unknown", "unknown version"),
    ],
)
def test_static_cuda_runtime(version, shown, driver, compile_library, capsys):
    document = audit_json(capsys, compile_library(runtime_source(version)))
    (report,) = document["libraries"]
    assert report["static_cuda_runtime"] == shown
    (finding,) = report["findings"]
    assert (finding["kind"], finding["violation"]) == ("static-runtime", False)
    assert driver in finding["detail"]


def test_text_of_the_runtime_alone_is_no_runtime(compile_library, capsys):
    source = f'{ANY}\nextern "C" const char* text() {{ return "cudaErrorCudartUnloading"; }}'
    (report,) = audit_json(capsys, compile_library(source))["libraries"]
    assert report["static_cuda_runtime"] is None


STRINGS = """
#include <torch/csrc/stable/library.h>
#include <string>
int64_t length(std::string text) { return text.size(); }
STABLE_TORCH_LIBRARY(audit_test, m) {
  m.def("length(str text) -> int");
  m.impl("length", TORCH_BOX(&length));
}
"""


def test_string_leak_of_the_installed_torchs_header(compile_library, capsys):
    include = Path(torch.__file__).parent / "include"
    flags = ("-std=c++20", f"-I{include}", "-DTORCH_TARGET_VERSION=0x020a000000000000")
    library = compile_library(STRINGS, needed=("libtorch_cpu.so",), flags=flags, runtime=True)
    (report,) = audit_json(capsys, library)["libraries"]
    leaks = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14)
    assert report["string_leaks"] == leaks
    assert ("string-leak" in {f["kind"] for f in report["findings"]}) is leaks


CONVERSION = """
#include <string>
extern "C" int torch_string_c_str(void*, const char**);
extern "C" int torch_delete_string(void*);
__attribute__((noinline)) std::string convert(void* handle) {
  const char* data = nullptr;
  torch_string_c_str(handle, &data);
  %s
  torch_delete_string(handle);
  return %s;
}
extern "C" int entry(void* handle) { return convert(handle).size(); }
"""


LEAKING = ("auto* copy = new std::string(data, 9);", "*copy", 1)
FIXED = ("std::string copy(data, 9);", "copy", 0)
OTHER_NEW = ("std::string copy(data, 9); delete new char[64];", "copy", 0)


@pytest.mark.parametrize(
    ("conversion", "flags"),
    [
        (LEAKING, ("-O0",)),
        (LEAKING, ("-O2",)),
        (LEAKING, ("-O2", "-fno-plt")),
        (FIXED, ("-O2",)),
        (OTHER_NEW, ("-O2",)),
    ],
    ids=["leaking-O0", "leaking-O2", "leaking-no-plt", "fixed", "other-new"],
)
def test_string_leak(conversion, flags, compile_library, capsys):
    copy, value, leaks = conversion
    source = CONVERSION % (copy, value)
    library = compile_library(source, flags=flags, runtime=True)
    assert audit_json(capsys, library)["libraries"][0]["string_leaks"] == leaks


DLSYM = call('extern "C" void* dlsym(void*, const char*);', 'dlsym(nullptr, "")')


def test_runtime_floor_against_the_wheels_tag(compile_library, tmp_path, capsys):
    library = compile_library(DLSYM, runtime=True)
    (report,) = audit_json(capsys, library)["libraries"]
    (glibc,) = (f for f in report["runtime_floors"] if f["family"] == "GLIBC")
    assert glibc["pinned_by"] == ["dlsym"]
    major, minor = glibc["version"].split(".")
    tags = {f"manylinux_{major}_{minor}_x86_64": 0, "linux_x86_64": 0, "manylinux1_x86_64": 1}
    tags["musllinux_1_2_x86_64"] = 1  # it has no glibc at all
    tags[f"manylinux_{major}_{int(minor) - 1}_x86_64.manylinux_{major}_{minor}_x86_64"] = 1
    for tag, status in tags.items():
        wheel = make_wheel(tmp_path / f"x-1-py3-none-{tag}.whl", {"x.so": library})
        document = audit_json(capsys, wheel)
        assert document["exit_code"] == status, tag
        assert document["libraries"][0]["platform"] == tag
        kinds = [f["kind"] for f in document["libraries"][0]["findings"]]
        assert kinds == ["runtime-too-new"] * status


def test_runtime_floor_against_a_platform_by_hand(compile_library, capsys):
    library = compile_library(DLSYM, runtime=True)
    for tag, status in {"manylinux1": 1, "manylinux_2_5_x86_64": 1, "manylinux_2_99": 0}.items():
        document = audit_json(capsys, library, "--platform", tag)
        assert (document["exit_code"], document["policy"]["platform"]) == (status, tag)
        kinds = [f["kind"] for f in document["libraries"][0]["findings"]]
        assert kinds == ["runtime-too-new"] * status
    for wrong in ("manylinux", "musllinux_1_2", "linux_x86_64", "manylinux_2"):
        with pytest.raises(SystemExit):
            audit_json(capsys, library, "--platform", wrong)


def test_libstdcxx_of_a_tag():
    for glibc, newest in {(2, 4): None, (2, 17): 19, (2, 28): 24, (2, 30): 24, (2, 99): 33}.items():
        found = libstdcxx_of_glibc(glibc)
        assert (found and found[0]) == (newest and (3, 4, newest))


def test_symbols_bound_to_one_version_of_a_library(compile_library, tmp_path, capsys):
    script = tmp_path / "versions"
    script.write_text("libfoo.so.13 { global: foo_*; };")
    soname = ("-Wl,-soname,libfoo.so.13", f"-Wl,--version-script={script}")
    provider = compile_library('extern "C" void foo_run() {}', name="libfoo.so.13", flags=soname)
    user = compile_library(call('extern "C" void foo_run();', "foo_run()"), flags=(str(provider),))
    assert ("symbol-version", "libfoo.so.13 of libfoo.so.13", None, False) in findings_of(
        audit_json(capsys, user)
    )


PRIVATE = call('extern "C" void _PyType_Lookup();', "_PyType_Lookup()")


@pytest.mark.parametrize(
    ("wheel", "member", "only"),
    [
        ("x-1-cp312-cp312-linux_x86_64.whl", "x.so", "3.12"),
        ("x-1-cp310-abi3-linux_x86_64.whl", "x.so", None),
        ("x-1-cp310-abi3-linux_x86_64.whl", "x.cpython-313t-x86_64-linux-gnu.so", "3.13t"),
        ("x-1-py3-none-any.whl", "x.cpython-311-x86_64-linux-gnu.so", "3.11"),
    ],
)
def test_one_python(wheel, member, only, compile_library, tmp_path, capsys):
    path = make_wheel(tmp_path / wheel, {member: compile_library(PRIVATE)})
    document = audit_json(capsys, path)
    (report,) = document["libraries"]
    assert report["only_python"] == only
    expected = ("python-api", "_PyType_Lookup", False, True)
    if only is not None:
        expected = ("one-python", f"Python {only}", None, False)
    assert findings_of(document) == [expected]


def test_torchs_python_bindings(compile_library, capsys):
    library = compile_library(call('extern "C" void THPVariable_Wrap();', "THPVariable_Wrap()"))
    assert findings_of(audit_json(capsys, library)) == [
        ("torch-python", "THPVariable_Wrap", False, True)
    ]


def test_installed_package_by_name(compile_library, tmp_path, capsys, monkeypatch):
    info = tmp_path / "audited_thing-1.dist-info"
    info.mkdir()
    (tmp_path / "thing.so").write_bytes(compile_library(ANY).read_bytes())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: audited-thing\nVersion: 1\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nTag: cp310-abi3-manylinux_2_28_x86_64\n")
    (info / "RECORD").write_text("thing.so,,\nthing.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    (report,) = audit_json(capsys, "audited-thing")["libraries"]
    assert report["path"] == str(tmp_path / "thing.so")
    assert report["platform"] == "manylinux_2_28_x86_64"
    assert audit_json(capsys, "no-such-thing")["exit_code"] == 2


def test_hundred_megabytes_take_seconds(compile_library):
    section = '__attribute__((section(".rodata"))) const char big[100 << 20] = {1};'
    library = compile_library(f'{ANY}\nextern "C" {section}')
    assert library.stat().st_size > 100 << 20
    tool = Path(__file__).parents[2] / "tools" / "audit_abi.py"
    done = subprocess.run([sys.executable, tool, library], timeout=20, capture_output=True)
    assert done.returncode == 0
