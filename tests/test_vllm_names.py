"""Who gets vLLM's operator names, in every order of import: never an abort by default."""

from __future__ import annotations

from pathlib import Path

import pytest

import stand_in
from subprocesses import Finished, run_python

CALL = """
a, out = torch.ones(1, 1, 8), torch.zeros(1, 1, 16)
torch.ops._C_cache_ops.concat_mla_q(a, a, out)
print("vllm-name", int(out.sum()))
out.zero_(); kvops.concat_mla_q(a, a, out)
print("function", int(out.sum()))
out.zero_(); torch.ops.kvops.concat_mla_q(a, a, out)
print("kvops-name", int(out.sum()))
"""
OURS = "vllm-name 16\nfunction 16\nkvops-name 16\n"
# The stand-in's kernel does nothing; ours fills 16 elements.
THEIRS = "vllm-name 0\nfunction 16\nkvops-name 16\n"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in.build(tmp_path_factory.mktemp("stand_in") / "stand_in.so")


@pytest.fixture(params=[None, "vllm", "sgl-kernel"], ids=["not-installed", "vllm", "sgl-kernel"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder for the module path in which an owner of the names is installed, or nobody."""
    return stand_in.pretend_installed(tmp_path, request.param) if request.param else tmp_path


def run(code: str, site: Path, **environ: str) -> Finished:
    done = run_python("import torch\n" + code, path=(site,), **environ)
    assert done.returncode == 0, done.stderr
    return done


def test_other_library_first(library: Path, site: Path) -> None:
    done = run(f"torch.ops.load_library({str(library)!r})\nimport kvops\n{CALL}", site)
    assert done.stdout == THEIRS
    # Where the owner is installed its names are nobody's surprise; otherwise a warning says so.
    if not list(site.iterdir()):
        assert "another library has defined _C_cache_ops::concat_mla_q" in done.stderr


def test_kvops_first(library: Path, site: Path) -> None:
    done = run(f"import kvops\ntorch.ops.load_library({str(library)!r})\n{CALL}", site)
    assert done.stdout == THEIRS


def test_kvops_alone(tmp_path: Path) -> None:
    assert run(f"import kvops\n{CALL}", tmp_path).stdout == OURS


def test_owner_installed_but_not_imported(tmp_path: Path) -> None:
    stand_in.pretend_installed(tmp_path, "vllm")
    done = run("import kvops; print(hasattr(torch.ops._C_cache_ops, 'concat_mla_q'))", tmp_path)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("how", ["function", "environment"])
def test_claimed_on_request(how: str, tmp_path: Path) -> None:
    stand_in.pretend_installed(tmp_path, "vllm")
    if how == "function":
        done = run(f"import kvops; names = kvops.register_vllm_names()\n{CALL}", tmp_path)
    else:
        done = run(f"import kvops\n{CALL}", tmp_path, KVOPS_VLLM_NAMES="1")
    assert done.stdout == OURS


def test_request_leaves_foreign_names(library: Path, tmp_path: Path) -> None:
    done = run(
        f"torch.ops.load_library({str(library)!r})\nimport kvops\n"
        "names = kvops.register_vllm_names()\n"
        "print('_C_cache_ops::concat_mla_q' in names, '_C_cache_ops::convert_fp8' in names)",
        tmp_path,
    )
    assert done.stdout == "False True\n"


def test_refused_by_environment(tmp_path: Path) -> None:
    code = "import kvops; print(hasattr(torch.ops._C_cache_ops, 'concat_mla_q'))"
    assert run(code, tmp_path, KVOPS_VLLM_NAMES="0").stdout == "False\n"


def test_unused_names_stay_free(tmp_path: Path) -> None:
    code = (
        "import kvops\n"
        "print(torch._C._jit_get_schemas_for_operator('_C_cache_ops::convert_fp8'))\n"
        "torch.ops._C_cache_ops.concat_mla_q\n"
        "print(kvops.info()['vLLM names held'])"
    )
    assert run(code, tmp_path).stdout == "[]\n['_C_cache_ops::concat_mla_q']\n"


def test_first_look_may_be_inside_a_graph(tmp_path: Path) -> None:
    code = """
import kvops
@torch.compile(fullgraph=True, backend="aot_eager")
def concat(a, out):
    torch.ops._C_cache_ops.concat_mla_q(a, a, out)
    return out + 1
print(int(concat(torch.ones(1, 1, 8), torch.zeros(1, 1, 16)).sum()))
"""
    assert run(code, tmp_path).stdout == "32\n"


def test_unknown_names_are_still_unknown(tmp_path: Path) -> None:
    code = "import kvops; print(hasattr(torch.ops._C_cache_ops, 'no_such_operator'))"
    assert run(code, tmp_path).stdout == "False\n"
