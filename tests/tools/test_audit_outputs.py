"""tools/abi_audit: JSON by its schema, SARIF, annotations, Markdown, the ratchet, the diff."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info < (3, 11):
    pytest.skip("torch-abi-audit needs Python 3.11", allow_module_level=True)

import audit_abi
from audit_support import ANY, audit_json, call, make_wheel, shim

TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def violations(value: Any, schema: dict, where: str = "$") -> list[str]:
    """What of a value is not as its schema says: the part of JSON Schema that ours uses."""
    if "oneOf" in schema:
        tried = [violations(value, option, where) for option in schema["oneOf"]]
        return [] if [] in tried else min(tried, key=len)
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if value is None:
        return [] if "null" in names else [f"{where}: null"]
    (name,) = (name for name in names if name != "null")
    if type(value) is not TYPES[name]:
        return [f"{where}: not of type {name}: {value!r}"]
    if value not in schema.get("enum", [value]):
        return [f"{where}: {value!r}"]
    if name == "array":
        items = enumerate(value)
        return [v for n, item in items for v in violations(item, schema["items"], f"{where}[{n}]")]
    if name != "object":
        return []
    known, others = schema.get("properties", {}), schema["additionalProperties"]
    found = [f"{where}: no {key}" for key in schema.get("required", []) if key not in value]
    for key, item in value.items():
        if key in known or others:
            found += violations(item, known.get(key, others), f"{where}.{key}")
        else:
            found.append(f"{where}: unknown key {key}")
    return found


@pytest.fixture
def schema(capsys) -> dict:
    assert audit_abi.main(["--json-schema"]) == 0
    return json.loads(capsys.readouterr().out)


MIGRATING = call(
    "namespace at { struct Tensor; void f(Tensor&); } namespace c10 { void g(); }\n"
    'extern "C" void torch_from_blob(); extern "C" void cudaMalloc(); void mine(at::Tensor*);',
    "c10::g(); mine(nullptr); torch_from_blob(); cudaMalloc()",
)


def test_json_is_as_its_schema_says(schema, compile_library, tmp_path, capsys):
    library = compile_library(MIGRATING, needed=("libcudart.so.12", "libfoo.so"), runtime=True)
    wheel = make_wheel(tmp_path / "x-1-cp310-abi3-manylinux1_x86_64.whl", {"x.so": library})
    assert violations(audit_json(capsys, library, wheel, "missing.so"), schema) == []
    source = tmp_path / "x.cpp"
    source.write_text("#include <torch/extension.h>\n")
    assert violations(audit_json(capsys, "--source", source), schema) == []
    audit_abi.main(["--json", "--diff", str(compile_library(ANY)), str(library)])
    assert violations(json.loads(capsys.readouterr().out), schema) == []
    assert violations({"schema": 1}, schema) != []


def test_sarif(compile_library, tmp_path, capsys):
    library, file = compile_library(MIGRATING, name="lib rary.so"), tmp_path / "x.sarif"
    assert audit_abi.main([str(library), str(tmp_path / "no.so"), "--sarif", str(file)]) == 2
    document = json.loads(file.read_text())
    (run,) = document["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert document["version"] == "2.1.0"
    assert {result["ruleId"] for result in run["results"]} <= rules
    levels = [(result["ruleId"], result["level"]) for result in run["results"]]
    assert levels.count(("undefined-unstable", "error")) == 2
    assert levels[-1] == ("unreadable", "error")
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("lib%20rary.so")


def test_sarif_of_a_wheel_names_the_file_and_the_library(compile_library, tmp_path, capsys):
    library, file = compile_library(MIGRATING), tmp_path / "x.sarif"
    wheel = make_wheel(tmp_path / "x-1-py3-none-any.whl", {"x/a.so": library, "x/b.so": library})
    assert audit_abi.main([str(wheel), "--sarif", str(file)]) == 1
    results = json.loads(file.read_text())["runs"][0]["results"]
    places = [result["locations"][0] for result in results]
    assert {p["physicalLocation"]["artifactLocation"]["uri"] for p in places} == {str(wheel)}
    assert {p["logicalLocations"][0]["name"] for p in places} == {"x/a.so", "x/b.so"}
    prints = [result["partialFingerprints"]["subject/v1"] for result in results]
    assert len(set(prints)) == len(prints)


def test_github_annotations(compile_library, tmp_path, capsys):
    library = compile_library(MIGRATING, name="x.so")
    assert audit_abi.main([str(library), str(tmp_path / "a,b\n.so"), "--github"]) == 2
    lines = capsys.readouterr().out.splitlines()
    unstable = next(line for line in lines if line.startswith("::error title=undefined-unstable::"))
    assert "mine(at::Tensor*)" in unstable and unstable.endswith("(and 1 more)")
    assert any(f"file={tmp_path}/a%2Cb%0A.so,title=unreadable" in line for line in lines)


def test_markdown_is_appended_and_keeps_its_table(compile_library, tmp_path, capsys):
    library, file = compile_library(MIGRATING, name="a|b<c>.so"), tmp_path / "summary.md"
    file.write_text("before\n")
    assert audit_abi.main([str(library), "--markdown", str(file)]) == 1
    text = file.read_text()
    assert text.startswith("before\n### Stable ABI: policy-broken\n")
    assert "a\\|b&lt;c&gt;.so" in text
    assert text.count("\n| 2.") == 7


def test_long_lists_are_cut_unless_asked_for(compile_library, capsys):
    names = [f"f{n}" for n in range(25)]
    declared = "namespace c10 {" + "".join(f"void {n}();" for n in names) + "}"
    library = compile_library(call(declared, ";".join(f"c10::{n}()" for n in names)))
    for options, listed in (([], 10), (["--all"], 25)):
        audit_abi.main([str(library), *options])
        out = capsys.readouterr().out
        assert out.count(": undefined-unstable: c10::") == listed
        assert ("and 15 more" in out) is (listed == 10)


def test_apis_and_replacements(compile_library, capsys):
    source = call(
        "namespace c10::detail { void torchCheckFail(const char*); }\n"
        "namespace at::_ops { struct empty_like { static void call(); };"
        " struct cumsum { static void call(); }; }",
        'c10::detail::torchCheckFail(""); at::_ops::empty_like::call(); at::_ops::cumsum::call()',
    )
    (report,) = audit_json(capsys, compile_library(source))["libraries"]
    assert [(g["api"], g["undefined"], g["replacement"]) for g in report["apis"]] == [
        ("ATen operators", 2, "torch::stable::empty_like; torch_call_dispatcher"),
        ("TORCH_CHECK", 1, "STD_TORCH_CHECK"),
    ]


def unstable(count: int) -> str:
    names = [f"f{n}" for n in range(count)]
    declared = "namespace c10 {" + "".join(f"void {n}();" for n in names) + "}"
    return call(declared, ";".join(f"c10::{n}()" for n in names) or "(void)0")


@pytest.fixture
def ratchet(compile_library, tmp_path, capsys):
    """Returns a function: audit a library with so many unstable symbols, status and last counts."""
    baseline, library = tmp_path / "baseline.json", tmp_path / "x.so"

    def run(count: int) -> tuple[int, int | None]:
        library.write_bytes(compile_library(unstable(count)).read_bytes())
        status = audit_abi.main([str(library), "--baseline", str(baseline)])
        capsys.readouterr()
        counts = json.loads(baseline.read_text())["counts"]
        return status, counts["x.so"].get("undefined-unstable")

    run.baseline = baseline
    return run


def test_ratchet(ratchet):
    assert ratchet(3) == (1, 3)  # there was nothing to compare with
    assert ratchet(3) == (0, 3)
    assert ratchet(4) == (1, 3)
    assert ratchet(2) == (0, 2)
    assert ratchet(3) == (1, 2)
    assert ratchet(0) == (0, None)


def test_ratchet_with_another_librarys_violations(ratchet, compile_library, tmp_path, capsys):
    ratchet(1)
    new = tmp_path / "new.so"
    new.write_bytes(compile_library(unstable(1)).read_bytes())
    arguments = [str(tmp_path / "x.so"), str(new), "--baseline", str(ratchet.baseline)]
    assert audit_abi.main(arguments) == 1
    assert "rose: new.so: undefined-unstable: 0 -> 1" in capsys.readouterr().out


def test_ratchet_with_two_libraries_of_one_name(compile_library, tmp_path, capsys):
    """The first must not hide behind the second."""
    wheels = [tmp_path / f"x{n}-1-py3-none-any.whl" for n in range(2)]
    baseline = tmp_path / "baseline.json"
    arguments = [*map(str, wheels), "--baseline", str(baseline)]
    for status, counts in ((1, (1, 2)), (0, (1, 2)), (1, (2, 1)), (0, (0, 2))):
        for wheel, count in zip(wheels, counts, strict=True):
            make_wheel(wheel, {"x.so": compile_library(unstable(count))})
        assert audit_abi.main(arguments) == status, counts
    assert "rose: x.so: undefined-unstable: 1 -> 2" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema": 1, "counts": {"x": {"y": "z"}}}'])
def test_ratchet_with_a_damaged_file(content, ratchet, compile_library, capsys):
    ratchet.baseline.write_text(content)
    assert audit_abi.main([str(compile_library(ANY)), "--baseline", str(ratchet.baseline)]) == 2
    assert "not a baseline" in capsys.readouterr().out
    assert ratchet.baseline.read_text() == content


def test_ratchet_with_an_unreadable_library(ratchet, tmp_path, capsys):
    ratchet(2)
    before = ratchet.baseline.read_text()
    (tmp_path / "x.so").write_bytes(b"garbage")
    assert audit_abi.main([str(tmp_path / "x.so"), "--baseline", str(ratchet.baseline)]) == 2
    assert ratchet.baseline.read_text() == before


@pytest.mark.parametrize(("old", "new", "status"), [(2, 3, 1), (3, 2, 0), (2, 2, 0)])
def test_diff(old, new, status, compile_library, capsys):
    libraries = [compile_library(unstable(count), name="x.so") for count in (old, new)]
    assert audit_abi.main(["--diff", *map(str, libraries)]) == status
    out = capsys.readouterr().out
    assert f"x.so: undefined-unstable: {old} -> {new}\n" in out
    assert ("+ undefined-unstable: c10::f2()" in out) is (new > old)
    assert ("- undefined-unstable: c10::f2()" in out) is (new < old)


def test_diff_names_the_torches_that_are_lost(compile_library, capsys):
    old = compile_library(shim("aoti_torch_get_dim"), name="x.so", needed=("libtorch_cpu.so",))
    new = compile_library(shim("torch_from_blob"), name="x.so", needed=("libtorch_cpu.so",))
    assert audit_abi.main(["--diff", str(old), str(new), "--floor", "2.11"]) == 1
    out = capsys.readouterr().out
    assert "x.so: no longer loads: torch 2.9 to 2.10\n" in out
    assert "x.so: min-torch: 2.9.0 or older -> 2.11.0, pinned by torch_from_blob\n" in out


def test_diff_with_something_unreadable(compile_library, tmp_path, capsys):
    assert audit_abi.main(["--diff", str(compile_library(ANY)), str(tmp_path / "no.so")]) == 2


def test_diff_takes_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        audit_abi.main(["--diff", "x.so"])
    assert stopped.value.code == 2


def project(folder: Path) -> Path:
    """Three units: one direct, one through an own header, one that is done."""
    files = {
        "direct.cpp": "#include <torch/csrc/stable/tensor.h>\n#include <torch/all.h>\n",
        "nested.cu": '#include "common/helper.h"\n',
        "common/helper.h": "#pragma once\n\n#include <c10/util/Half.h>\n",
        "done.cpp": '#include <torch/csrc/stable/library.h>\n#include "own.h"\n',
        "own.h": "#include <vector>\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_source_mode(tmp_path, capsys):
    folder = project(tmp_path / "csrc")
    assert audit_abi.main(["--source", str(folder)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}/common/helper.h:3: c10/util/Half.h (for 1 units)",
        f"{folder}/direct.cpp:2: torch/all.h (for 1 units)",
        "source: 2 of 3 translation units include unstable headers, through 2 include lines",
    ]


def test_source_mode_with_dependency_files(tmp_path, capsys):
    folder, build = project(tmp_path / "csrc"), tmp_path / "build"
    build.mkdir()
    include = "/env/lib/python3.11/site-packages/torch/include"
    rules = {
        "direct": f"{folder}/direct.cpp {include}/torch/all.h {include}/ATen/ATen.h",
        "nested": f"{folder}/nested.cu {folder}/common/helper.h {include}/c10/util/Half.h",
        # A stable header that itself brings an unstable one: no line of the project names it.
        "done": f"{folder}/done.cpp {folder}/own.h {include}/ATen/core/Tensor.h",
    }
    for name, headers in rules.items():
        (build / f"{name}.o.d").write_text(f"{name}.o: {headers}\n")
    assert audit_abi.main(["--source", str(build)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{build}/done.o.d:0: {include}/ATen/core/Tensor.h (for 1 units)",
        f"{folder}/common/helper.h:3: c10/util/Half.h (for 1 units)",
        f"{folder}/direct.cpp:2: torch/all.h (for 1 units)",
        "source: 3 of 3 translation units include unstable headers, through 3 include lines",
    ]


def test_source_mode_with_a_baseline(tmp_path, capsys):
    folder, baseline = project(tmp_path / "csrc"), tmp_path / "baseline.json"
    command = ["--source", str(folder), "--baseline", str(baseline)]
    assert [audit_abi.main(command), audit_abi.main(command)] == [1, 0]
    (folder / "direct.cpp").write_text("")
    assert audit_abi.main(command) == 0
    assert json.loads(baseline.read_text())["counts"]["source"]["unstable-units"] == 1
    (folder / "done.cpp").write_text("#include <ATen/ATen.h>\n#include <c10/x.h>\n")
    assert audit_abi.main(command) == 1


TRICKY = """\
// #include <ATen/ATen.h>
/* as in a/*.h:
#include <c10/core/Device.h>
*/ #include <torch/all.h>
const char* s = "/*";
#include <torch//types.h>
const char quote = '"'; // "/*
#include <torch/extension.h>
const char* t = "*/";
"""


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order-mark"])
def test_source_mode_knows_comments(mark, tmp_path, capsys):
    (tmp_path / "a.cpp").write_bytes(mark + b"#include <torch/torch.h>\n" + TRICKY.encode())
    found = audit_json(capsys, "--source", tmp_path / "a.cpp")["source"]["unstable_includes"]
    assert [(i["line"], i["header"]) for i in found] == [
        *((1, "torch/torch.h"), (5, "torch/all.h")),
        *((7, "torch//types.h"), (9, "torch/extension.h")),
    ]


def test_source_mode_refuses_what_no_compiler_reads(tmp_path, capsys):
    (tmp_path / "a.cpp").write_bytes("#include <torch/torch.h>\n".encode("utf-16"))
    assert audit_abi.main(["--source", str(tmp_path)]) == 2
    assert "a.cpp: not text that a compiler reads" in capsys.readouterr().out


def test_source_mode_reads_sources_beside_a_build(tmp_path, capsys):
    """What was not compiled must not go unseen because something else was."""
    build, sources = tmp_path / "build", tmp_path / "src"
    build.mkdir(), sources.mkdir()
    (sources / "compiled.cpp").write_text("#include <torch/csrc/stable/library.h>\n")
    (sources / "left.cpp").write_text("#include <torch/all.h>\n")
    header = "/x/include/torch/csrc/stable/library.h"
    (build / "compiled.o.d").write_text(f"compiled.o: {sources}/compiled.cpp {header}\n")
    for inputs in ((build, sources), (sources, build)):
        source = audit_json(capsys, "--source", *inputs)["source"]
        assert source["units"] == 2
        assert [i["header"] for i in source["unstable_includes"]] == ["torch/all.h"]


def test_source_mode_annotates_the_line(tmp_path, capsys):
    folder = project(tmp_path / "csrc")
    assert audit_abi.main(["--source", str(folder), "--github"]) == 1
    assert f"::error file={folder}/direct.cpp,line=2,title=unstable-header::" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_source_mode_with_nothing_to_read(name, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert audit_abi.main(["--source", str(tmp_path / name)]) == 2


def test_source_mode_with_an_object_without_its_dependency_file(tmp_path, capsys):
    (tmp_path / "a.o.d").write_text("a.o: a.cpp /x/include/torch/csrc/stable/tensor.h\n")
    (tmp_path / "b.o").touch()
    assert audit_abi.main(["--source", str(tmp_path)]) == 2
    assert "b.o: compiled without a dependency file" in capsys.readouterr().out
