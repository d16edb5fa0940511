"""tools/audit_abi.py fails closed: what it could not read is never clean and outweighs the rest."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("torch-abi-audit needs Python 3.11", allow_module_level=True)

import audit_abi
from abi_audit.elf import SharedLibrary, Unreadable, read_library

GOOD = 'extern "C" int entry() { return 1; }'
BROKEN = 'namespace c10 { void f(); }\nextern "C" void entry() { c10::f(); }'


@pytest.fixture(scope="module")
def good(compile_library) -> Path:
    return compile_library(GOOD)


def _assert_unreadable(path: Path, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit_abi.main([str(path)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(str(path))
    assert ": unreadable: " in lines[0]
    assert reason in lines[0]
    assert lines[1] == "verdict: unreadable (1 unreadable)"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable ELF file"),
        (b"garbage" * 1000, "not a readable ELF file"),
        (b"INPUT(libfoo.so.1)\n", "not a readable ELF file"),
        (b"\x7fELF", "not a readable ELF file"),
        (b"\xcf\xfa\xed\xfe" * 100, "not a readable ELF file"),
    ],
    ids=["empty", "garbage", "linker-script", "magic-only", "mach-o"],
)
def test_garbage(content, reason, tmp_path, capsys):
    path = tmp_path / "x.so"
    path.write_bytes(content)
    _assert_unreadable(path, reason, capsys)


def test_truncated_anywhere(good):
    content = good.read_bytes()
    for length in range(0, len(content), 61):
        with pytest.raises(Unreadable):
            read_library(io.BytesIO(content[:length]))
    assert read_library(io.BytesIO(content)).exported


def test_ends_before_a_segment(good, tmp_path, capsys):
    content = bytearray(good.read_bytes())  # its section headers are whole, unlike those cut above
    first, count = struct.unpack_from("<Q", content, 0x20)[0], content[0x38]
    segments = range(first, first + 56 * count, 56)
    last = max(h for h in segments if struct.unpack_from("<I", content, h)[0] == 1)  # PT_LOAD
    struct.pack_into("<Q", content, last + 0x20, len(content))  # p_filesz
    path = tmp_path / "x.so"
    path.write_bytes(content)
    _assert_unreadable(path, "truncated: ", capsys)


def test_damaged_anywhere_reads_or_is_unreadable(good):
    content = good.read_bytes()
    rng = random.Random(2)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(8):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            outcomes.add(type(read_library(io.BytesIO(damaged))))
        except Unreadable:
            outcomes.add(Unreadable)
    assert outcomes == {SharedLibrary, Unreadable}


def test_relocatable_object(tmp_path, capsys):
    path = tmp_path / "x.so"
    command = ["g++", "-xc++", "-c", "-o", str(path), "-"]
    subprocess.run(command, input=GOOD, text=True, check=True)
    _assert_unreadable(path, "not a shared library (ET_REL)", capsys)


def test_without_section_headers(good, tmp_path, capsys):
    content = bytearray(good.read_bytes())
    struct.pack_into("<Q", content, 0x28, 0)  # e_shoff
    struct.pack_into("<HHH", content, 0x3A, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    path = tmp_path / "x.so"
    path.write_bytes(content)
    _assert_unreadable(path, "no dynamic symbol table (stripped?)", capsys)


def test_debug_file_without_contents(good, tmp_path, capsys):
    path = tmp_path / "x.so"
    subprocess.run(["objcopy", "--only-keep-debug", good, path], check=True)
    _assert_unreadable(path, "", capsys)


def test_without_symbols(compile_library, capsys):
    library = compile_library("static int hidden() { return 1; }")
    _assert_unreadable(library, "the dynamic symbol table is empty", capsys)


DYNSYM, STRTAB = 11, 3
SH_ADDR, SH_OFFSET, SH_SIZE = 0x10, 0x18, 0x20


@pytest.mark.parametrize(
    ("kind", "field", "value", "reason"),
    [
        (DYNSYM, SH_ADDR, 0xBAD, "another symbol table than the loader's"),
        (DYNSYM, SH_OFFSET, 0x40, "another symbol table than the loader's"),
        (STRTAB, SH_OFFSET, 0x40, "another symbol table than the loader's"),
        (DYNSYM, SH_SIZE, 2 * 24, "end the symbol table before the loader's ends"),
    ],
)
def test_section_headers_that_name_another_table(
    kind, field, value, reason, compile_library, tmp_path, capsys
):
    content = bytearray(compile_library(BROKEN).read_bytes())
    table, count = struct.unpack_from("<Q", content, 0x28)[0], content[0x3C]
    headers = range(table, table + 64 * count, 64)
    header = next(h for h in headers if struct.unpack_from("<I", content, h + 4)[0] == kind)
    struct.pack_into("<Q", content, header + field, value)
    path = tmp_path / "x.so"
    path.write_bytes(content)
    _assert_unreadable(path, reason, capsys)


def test_missing_file(tmp_path, capsys):
    _assert_unreadable(tmp_path / "no.so", "no such file", capsys)
    _assert_unreadable(tmp_path / "no.whl", "no such file", capsys)


def test_directory_without_library(tmp_path, capsys):
    (tmp_path / "x.py").touch()
    _assert_unreadable(tmp_path, "no shared library in this directory", capsys)


def test_directory_with_dangling_link(tmp_path, capsys):
    (tmp_path / "x.so").symlink_to("gone.so")
    _assert_unreadable(tmp_path, "no such file", capsys)


def test_directory_that_may_not_be_read(good, tmp_path, capsys, monkeypatch):
    (tmp_path / "ok.so").write_bytes(good.read_bytes())
    closed = tmp_path / "closed"
    closed.mkdir()
    scandir = os.scandir

    def scandir_as_another_user(path):  # the tests may run as root, who may read everything
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scandir_as_another_user)
    assert audit_abi.main([str(tmp_path)]) == 2
    assert f"{closed}: unreadable: permission denied\n" in capsys.readouterr().out


def test_wheel_without_library(tmp_path, capsys):
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("x/__init__.py", "")
    _assert_unreadable(path, "no shared library in this wheel", capsys)


def test_wheel_that_is_no_zip(tmp_path, capsys):
    path = tmp_path / "x-1-py3-none-any.whl"
    path.write_bytes(b"PK" * 100)
    _assert_unreadable(path, "damaged wheel", capsys)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_wheel_with_damaged_member(compression, good, tmp_path, capsys):
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", compression) as wheel:
        wheel.writestr("x/y.so", good.read_bytes())
    content = bytearray(path.read_bytes())
    content[200:220] = bytes(b ^ 0xFF for b in content[200:220])
    path.write_bytes(content)
    _assert_unreadable(path, "", capsys)


def test_wheel_with_garbage_library(tmp_path, capsys):
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("x/y.so", b"garbage")
    _assert_unreadable(path, "not a readable ELF file", capsys)


def test_unreadable_outweighs_broken_and_hides_nothing(good, compile_library, tmp_path, capsys):
    broken = compile_library(BROKEN)
    garbage = tmp_path / "garbage.so"
    garbage.write_bytes(b"garbage")
    assert audit_abi.main([str(broken), str(garbage), str(good)]) == 2
    out = capsys.readouterr().out
    assert f"{broken}: undefined-unstable: c10::f()" in out
    assert f"{garbage}: unreadable: " in out
    assert f"{good}: clean: " in out
    assert out.endswith("verdict: unreadable (1 clean, 1 policy-broken, 1 unreadable)\n")


@pytest.mark.parametrize("name", ["x.so", "x.whl"])
def test_pipe_is_not_waited_for(name, tmp_path, capsys):
    os.mkfifo(tmp_path / name)
    _assert_unreadable(tmp_path / name, "not a regular file", capsys)


def test_links_that_lead_nowhere(tmp_path, capsys):
    (tmp_path / "loop.so").symlink_to("loop.so")
    (tmp_path / "none.so").symlink_to("missing")
    assert audit_abi.main([str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert "loop.so: unreadable: too many levels of symbolic links" in printed
    assert "none.so: unreadable: no such file or directory" in printed


def test_empty_input_is_not_the_current_folder(good, tmp_path, monkeypatch):
    monkeypatch.chdir(good.parent)
    with pytest.raises(SystemExit) as stopped:
        audit_abi.main([""])
    assert stopped.value.code == 2


@pytest.mark.parametrize("option", ["--sarif", "--markdown", "--baseline"])
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_file_that_cannot_be_written(option, as_json, good, tmp_path, capsys):
    file = tmp_path / "missing" / "file"
    arguments = [str(good), option, str(file)] + ["--json"] * as_json
    assert audit_abi.main(arguments) == 2
    printed = capsys.readouterr().out
    problem = f"{file}: cannot be written (No such file or directory)"
    expected = {"schema": 1, "exit_code": 2, "problem": problem}
    assert json.loads(printed) == expected if as_json else printed == f"unreadable: {problem}\n"


@pytest.mark.parametrize("mode", ["--source", "--diff"])
def test_json_says_why_there_is_no_answer(mode, good, tmp_path, capsys):
    inputs = [str(tmp_path / "missing.so")] + [str(good)] * (mode == "--diff")
    assert audit_abi.main(["--json", mode, *inputs]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == 2
    assert "missing.so" in document["problem"]


def test_reader_that_goes_away(good):
    command = [sys.executable, audit_abi.__file__, "--json", str(good)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (2, "")
