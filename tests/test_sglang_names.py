"""Who gets SGLang's operator names: the rules of vLLM's (tests/test_vllm_names.py), one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

import stand_in
from subprocesses import Finished, run_python

CALL = """
a, out, one = torch.ones(2, 8), torch.zeros(2, 8), torch.tensor([1])
torch.ops.sgl_kernel.transfer_kv_direct([a], [out], one, one, 1)
print("sglang-name", int(out.sum()))
out.zero_(); kvops.transfer_kv_direct([a], [out], one, one, 1)
print("function", int(out.sum()))
"""
OURS = "sglang-name 8\nfunction 8\n"
# The stand-in's kernel does nothing; ours fills 8 elements.
THEIRS = "sglang-name 0\nfunction 8\n"
LOOK = "import kvops; print(hasattr(torch.ops.sgl_kernel, 'transfer_kv_direct'))"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("stand_in") / "sglang.so"
    return stand_in.build(target, "sgl_kernel", stand_in.SGLANG_NAMES)


def run(code: str, site: Path, **environ: str) -> Finished:
    done = run_python("import torch\n" + code, path=(site,), **environ)
    assert done.returncode == 0, done.stderr
    return done


def test_kvops_alone(tmp_path: Path) -> None:
    assert run(f"import kvops\n{CALL}", tmp_path).stdout == OURS


@pytest.mark.parametrize("owner", [None, "sglang-kernel"])
def test_other_library_first(owner: str | None, library: Path, tmp_path: Path) -> None:
    if owner:
        stand_in.pretend_installed(tmp_path, owner)
    done = run(f"torch.ops.load_library({str(library)!r})\nimport kvops\n{CALL}", tmp_path)
    assert done.stdout == THEIRS
    warned = "another library has defined sgl_kernel::transfer_kv_direct" in done.stderr
    assert warned == (owner is None)


def test_other_library_later(library: Path, tmp_path: Path) -> None:
    done = run(f"import kvops\ntorch.ops.load_library({str(library)!r})\n{CALL}", tmp_path)
    assert done.stdout == THEIRS


@pytest.mark.parametrize("owner", ["sglang-kernel", "sgl-kernel"])
def test_owner_installed_but_not_imported(owner: str, tmp_path: Path) -> None:
    stand_in.pretend_installed(tmp_path, owner)
    assert run(LOOK, tmp_path).stdout == "False\n"


def test_vllm_has_no_say(tmp_path: Path) -> None:
    stand_in.pretend_installed(tmp_path, "vllm")
    assert run(LOOK, tmp_path).stdout == "True\n"


@pytest.mark.parametrize("how", ["function", "environment"])
def test_claimed_on_request(how: str, tmp_path: Path) -> None:
    stand_in.pretend_installed(tmp_path, "sglang-kernel")
    if how == "function":
        done = run(f"import kvops; kvops.register_sglang_names()\n{CALL}", tmp_path)
    else:
        done = run(f"import kvops\n{CALL}", tmp_path, KVOPS_SGLANG_NAMES="1")
    assert done.stdout == OURS


def test_refused_by_environment(tmp_path: Path) -> None:
    assert run(LOOK, tmp_path, KVOPS_SGLANG_NAMES="0").stdout == "False\n"


def test_each_peer_has_names_of_its_own(tmp_path: Path) -> None:
    code = (
        "import kvops\n"
        "sglang, vllm = kvops.register_sglang_names(), kvops.register_vllm_names()\n"
        "print({n.split('::')[0] for n in sglang}, len(sglang), set(sglang) & set(vllm))"
    )
    assert run(code, tmp_path).stdout == "{'sgl_kernel'} 14 set()\n"
