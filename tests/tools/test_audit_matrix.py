"""tools/abi_audit: where a library is predicted to load, and that real torches agree."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

if sys.version_info < (3, 11):
    pytest.skip("torch-abi-audit needs Python 3.11", allow_module_level=True)

import audit_abi
from abi_audit import facts, verify
from abi_audit.matrix import ENVIRONMENTS
from abi_audit.phrases import places_text
from audit_support import ANY, audit_json, call, shim

CPU, TORCH = ("libtorch_cpu.so",), ("libtorch.so",)
EVERYWHERE = "everywhere"


def places(document: dict, outcome: str, index: int = 0) -> str | None:
    """Where a library has an outcome, in words; None: nowhere."""
    cells = document["libraries"][index]["load_matrix"]
    assert len(cells) == len(ENVIRONMENTS)
    found = [e for e, c in zip(ENVIRONMENTS, cells, strict=True) if c["loads"] == outcome]
    return places_text(found) if found else None


# source, DT_NEEDED -> where it loads, where that is unknown; elsewhere it does not.
PREDICTIONS = {
    "nothing": (ANY, (), EVERYWHERE, None),
    "old shim": (shim("aoti_torch_get_dim"), CPU, EVERYWHERE, None),
    "old shim, torch not linked": (shim("aoti_torch_get_dim"), (), None, None),
    "shim of 2.11": (shim("torch_from_blob"), CPU, "torch 2.11 to 2.15", None),
    "weak shim of 2.11": (
        shim("torch_from_blob", "__attribute__((weak))"), CPU, EVERYWHERE, None
    ),
    "shim of no release": (shim("torch_no_such_shim"), CPU, None, EVERYWHERE),
    "CUDA shim": (
        shim("aoti_torch_get_current_cuda_stream"), TORCH, "cu12 and cu13", None
    ),
    "CUDA shim, only libtorch_cpu linked": (
        shim("aoti_torch_get_current_cuda_stream"), CPU, None, None
    ),
    "libcudart.so.12": (ANY, ("libcudart.so.12",), "cu12", None),
    "libcudart.so.13": (ANY, ("libcudart.so.13",), "cu13", None),
    "libtorch_cuda.so": (ANY, ("libtorch_cuda.so",), "cu12 and cu13", None),
    "libcuda.so.1": (ANY, ("libcuda.so.1",), "with a driver", None),
    "everything of vLLM's": (
        shim("torch_from_blob"),
        ("libtorch_cuda.so", "libcudart.so.13", "libcuda.so.1"),
        "torch 2.11 to 2.15, cu13, with a driver",
        None,
    ),
    "library of other people": (ANY, ("libavcodec.so.62",), None, EVERYWHERE),
    "CUDA runtime by symbol alone": (shim("cudaMalloc"), (), "cu12 and cu13", None),
    "unstable symbol that was removed": (
        shim("_ZN3c104impl3cow23materialize_cow_storageERNS_11StorageImplE"), CPU,
        "torch 2.9 to 2.12", None,
    ),
    "unstable symbol that came": (
        shim("_ZNK3c1010TensorImpl15decref_pyobjectEv"), CPU, "torch 2.10 to 2.15", None
    ),
    "unstable symbol that stayed": (
        shim("_ZN3c106detail14torchCheckFailEPKcS2_jS2_"), CPU, EVERYWHERE, None
    ),
    "unstable symbol nobody has surveyed": (
        call("namespace c10 { void nobody_knows(); }", "c10::nobody_knows()"), CPU,
        None, EVERYWHERE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PREDICTIONS)
def test_prediction(case, compile_library, capsys):
    source, needed, loads, unknown = PREDICTIONS[case]
    document = audit_json(capsys, compile_library(source, needed=needed))
    assert (places(document, "yes"), places(document, "unknown")) == (loads, unknown)
    for cell in document["libraries"][0]["load_matrix"]:
        assert bool(cell["reasons"]) == (cell["loads"] != "yes")


def test_a_library_loads_where_what_comes_with_it_does(compile_library, tmp_path, capsys):
    own = "namespace at { int helper() { return 1; } }"
    core = compile_library(
        f"{ANY}\n{own}", needed=("libcudart.so.12",), flags=("-Wl,-soname,libcore.so",)
    )
    user = compile_library(
        call("namespace at { int helper(); }", "at::helper()"), needed=("libcore.so",)
    )
    (tmp_path / "libcore.so").write_bytes(core.read_bytes())
    (tmp_path / "user.so").write_bytes(user.read_bytes())
    document = audit_json(capsys, tmp_path)
    assert places(document, "yes", 1) == "cu12"  # and at::helper is found beside it
    alone = audit_json(capsys, tmp_path / "user.so", "--allow-needed", "libcore.so")
    assert places(alone, "yes") is None


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ((), 1),
        (("--build", "cu13"), 1),
        (("--build", "cu13", "--driver"), 0),
        (("--build", "cu12", "--driver"), 1),
        (("--build", "cu12", "--build", "cu13", "--driver"), 1),
    ],
)
def test_a_narrower_promise_allows_what_its_torches_bring(options, status, compile_library, capsys):
    library = compile_library(ANY, needed=("libcudart.so.13", "libcuda.so.1", "libtorch_cuda.so"))
    assert audit_json(capsys, library, *options)["exit_code"] == status


def test_the_table_of_libraries_agrees_with_this_torch():
    script = (
        "import torch, os\n"
        "print(*{os.path.basename(l.split()[-1]) for l in open('/proc/self/maps') if '.so' in l})"
    )
    command = [sys.executable, "-c", script]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    release = tuple(map(int, torch.__version__.split(".")[:2]))
    build = f"cu{torch.version.cuda.split('.')[0]}" if torch.version.cuda else "cpu"
    known = facts.provided_by((build,), driver=False)
    assert {n for n in known if facts.is_brought(n, release, build)} <= loaded
    others = {n for n in facts.provided_by(("cu12",), False) if n not in known}
    assert not others & loaded


@pytest.fixture
def this_torch(monkeypatch) -> None:
    """--verify uses the running Python and its torch, instead of making an environment."""

    @contextmanager
    def environment(cell, python):
        yield Path(sys.executable)

    monkeypatch.setattr(verify, "_environment", environment)


def verified(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    status = audit_abi.main(["--json", "--verify", "2.13", *map(str, arguments)])
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == status
    return document


@pytest.mark.usefixtures("this_torch")
def test_verify(compile_library, capsys):
    good = compile_library(shim("aoti_torch_get_dim"), name="good.so", needed=CPU)
    bad = compile_library(shim("torch_no_such_shim"), name="bad.so", needed=CPU)
    tried = verified(capsys, good, bad)["verification"]
    assert [(a["key"], a["loaded"], a["agrees"]) for a in tried] == [
        ("good.so", True, True),
        ("bad.so", False, None),
    ]
    assert "torch_no_such_shim" in tried[1]["error"]
    assert tried[0]["torch"] == torch.__version__


@pytest.mark.usefixtures("this_torch")
def test_verifying_nothing_is_no_success(compile_library, capsys):
    other = compile_library(ANY, name="x.cpython-39-x86_64-linux-gnu.so")
    assert audit_abi.main(["--verify", "2.13", str(other)]) == 2
    printed = capsys.readouterr().out
    assert printed.startswith("unreadable: nothing here can be loaded by Python 3.")
    assert printed.endswith("(--python: 3.9)\n")


@pytest.mark.usefixtures("this_torch")
def test_a_wrong_prediction_fails(compile_library, monkeypatch, capsys):
    monkeypatch.setattr("abi_audit.matrix.is_brought", lambda library, torch, build: False)
    library = compile_library(shim("aoti_torch_get_dim"), name="good.so", needed=CPU)
    document = verified(capsys, library)
    assert (document["verdict"], document["exit_code"]) == ("clean", 1)
    assert [a["agrees"] for a in document["verification"]] == [False]


@pytest.mark.usefixtures("this_torch")
def test_what_the_machine_lends_proves_nothing(compile_library, capsys):
    brought = torch.version.cuda and f"libcudart.so.{torch.version.cuda.split('.')[0]}"
    soname = "libcudart.so.12" if brought != "libcudart.so.12" else "libcudart.so.13"
    lent = compile_library(ANY, name=soname, flags=(f"-Wl,-soname,{soname}",))
    user = compile_library(ANY, needed=(soname,), flags=(f"-Wl,-rpath,{lent.parent}",))
    (attempt,) = verified(capsys, user)["verification"]
    assert (attempt["predicted"], attempt["loaded"], attempt["agrees"]) == ("no", True, None)
    assert attempt["borrowed"] == [str(lent)]


@pytest.mark.parametrize("cell", ["1.13", "2.99", "2", "2.13+cu12", "x"])
def test_verify_refuses_unknown_torches(cell, capsys):
    with pytest.raises(SystemExit) as stopped:
        audit_abi.main(["--verify", cell, "x.so"])
    assert stopped.value.code == 2
